import { createHash } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import { type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import type { ScenarioSettings } from './scenario-app.js'

/** What the database says, read past the application. */
export interface Truth {
  readonly operations: readonly { id: string; point: string; offset: number }[]
  readonly references: number
  /** Rows that the application wrote in the references' transactions. */
  readonly arrivals: number
  /** Files in the blob store's directory. */
  readonly blobs: number
}

/** A server process of its own on a directory of its own, behind a proxy of its own. */
export interface Scenario {
  readonly server: RunningProcess
  readonly proxy: Proxy
  truth(): Promise<Truth>
  /** `kill -9`, then the same again on the same directory; the proxy follows to the new port. */
  killAndRestart(): Promise<void>
  /** Another process takes SQLite's write lock and holds it: until `release`, no writing transaction can begin. */
  takeDatabaseAway(): Promise<{ release(): Promise<void> }>
  /** The digest of what `GET /files/{id}` answers, asked past the proxy. */
  storedSha256(id: string): Promise<string>
  close(): Promise<void>
}

const APP = join(repository, 'e2e/dist/programs/scenario-app.js')

const LOCK = `
  const { createClient } = await import('@libsql/client')
  const client = createClient({ url: process.argv[1] })
  for (;;) {
    try { await client.transaction('write'); break }
    catch (error) { if (!String(error).includes('locked')) throw error }
  }
  console.log('locked')
  setInterval(() => {}, 60_000)`

export async function startScenario(settings: Omit<ScenarioSettings, 'directory'>): Promise<Scenario> {
  const home = await temporaryDirectory('landfall-scenario-')
  const directory = join(home.path, 'data')
  await mkdir(directory)
  const server = await startProcess({
    name: 'scenario-app',
    command: process.execPath,
    args: [APP, JSON.stringify({ ...settings, directory })],
    ready: /http:\/\/127\.0\.0\.1:(\d+)/,
  })
  const portNow = (): number => Number(server.ready[1])
  const proxy = await startProxy({ targetPort: portNow() })
  const url = `file:${join(directory, 'app.db')}`

  return {
    server,
    proxy,
    async truth() {
      const client = createClient({ url })
      const count = async (table: string): Promise<number> =>
        Number((await client.execute(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.['n'])
      try {
        const { rows } = await client.execute('SELECT id, point, "offset" FROM landfall_operations')
        return {
          operations: rows.map((row) => ({
            id: textOf(row['id']),
            point: textOf(row['point']),
            offset: Number(row['offset']),
          })),
          references: await count('landfall_references'),
          arrivals: await count('arrivals'),
          blobs: await countFiles(join(directory, 'blobs', 'blobs')),
        }
      } finally {
        client.close()
      }
    },
    async killAndRestart() {
      await server.kill('SIGKILL')
      await server.restart()
      proxy.retarget(portNow())
    },
    async takeDatabaseAway() {
      const holder = await startProcess({
        name: 'lock holder',
        command: process.execPath,
        args: ['--input-type=module', '-e', LOCK, url],
        cwd: repository,
        ready: /locked/,
      })
      return { release: async () => void (await holder.kill('SIGKILL')) }
    },
    async storedSha256(id) {
      const answer = await fetch(`http://127.0.0.1:${portNow()}/uploads/files/${id}`)
      if (!answer.ok) return `status ${answer.status}`
      return createHash('sha256')
        .update(Buffer.from(await answer.arrayBuffer()))
        .digest('hex')
    },
    async close() {
      await proxy.close()
      await server.kill()
      await home.remove()
    },
  }
}

async function countFiles(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => entry.isFile()).length
}

function textOf(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('the column holds no text')
  return value
}
