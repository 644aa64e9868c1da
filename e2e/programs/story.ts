import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Client, createClient, type Row } from '@libsql/client'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import { type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import type { StoryReport, StorySettings } from './story-app.js'

/** What is true in the end: read from the application's database and from the disk, past the application. */
export interface Truth {
  readonly operations: readonly {
    owner: string
    id: string
    name: string
    size: number
    point: string
    stalled: boolean
    /** Acknowledged bytes. */
    offset: number
    digest: string | null
    blobKey: string
  }[]
  readonly references: readonly { owner: string; operationId: string; blobKey: string; size: number; digest: string }[]
  /** The application's own rows. */
  readonly rows: readonly { owner: string; operationId: string; name: string; size: number; digest: string }[]
  /** Keys of the blobs on the disk, with their paths. */
  readonly blobs: ReadonlyMap<string, string>
  /** Rows that the application wrote beside all uploads. */
  readonly notes: number
}

/** The demo application as a process of its own, on a directory of its own, behind a proxy of its own. */
export interface Story {
  readonly server: RunningProcess
  readonly proxy: Proxy
  truth(): Promise<Truth>
  /** Resolves with the first truth for which the predicate holds. @throws after `withinMs` (default 30,000), with what is true then. */
  until(holds: (truth: Truth) => boolean, withinMs?: number): Promise<Truth>
  /** `kill -9`. Then the page cannot reach it. */
  kill(): Promise<void>
  /** Starts it again on the same directory; the proxy follows to its new port. */
  restart(): Promise<void>
  /** What the application saw; ends its own writing. */
  report(): Promise<StoryReport>
  close(): Promise<void>
}

const APP = join(repository, 'e2e/dist/programs/story-app.js')
const PAGE = join(repository, 'e2e/build/page')
const LOOK_EVERY_MS = 50

export async function startStory(settings: Omit<StorySettings, 'directory' | 'page'> = {}): Promise<Story> {
  const home = await temporaryDirectory('landfall-story-')
  const directory = join(home.path, 'data')
  await mkdir(directory)
  const server = await startProcess({
    name: 'story-app',
    command: process.execPath,
    args: [APP, JSON.stringify({ ...settings, directory, page: PAGE })],
    ready: /http:\/\/127\.0\.0\.1:(\d+)/,
    readyWithinMs: 60_000,
  })
  const portNow = (): number => Number(server.ready[1])
  const proxy = await startProxy({ targetPort: portNow() })
  // A restarted server recovers its write-ahead log under a lock: wait for it.
  const database = createClient({ url: `file:${join(directory, 'app.db')}`, timeout: 5000 })
  const truth = (): Promise<Truth> => readTruth(database, join(directory, 'blobs', 'blobs'))

  return {
    server,
    proxy,
    truth,
    async until(holds, withinMs = 30_000) {
      for (const deadline = performance.now() + withinMs; ; await sleep(LOOK_EVERY_MS)) {
        const now = await truth()
        if (holds(now)) return now
        if (performance.now() > deadline)
          throw new Error(`not true within ${withinMs} ms: ${String(holds)}\n${JSON.stringify(now, null, 1)}`)
      }
    },
    async kill() {
      await server.kill('SIGKILL')
    },
    async restart() {
      await server.restart()
      proxy.retarget(portNow())
    },
    async report() {
      const answer = await fetch(`http://127.0.0.1:${portNow()}/-/story`)
      return (await answer.json()) as StoryReport
    },
    async close() {
      database.close()
      await proxy.close()
      await server.kill()
      await home.remove()
    },
  }
}

/** One read transaction: what is answered was true at one moment. The disk is read after it. */
async function readTruth(database: Client, directory: string): Promise<Truth> {
  const [operations, references, files, notes] = await database.batch(
    [
      'SELECT owner, id, file_name, file_size, point, stalled, "offset", digest, blob_key FROM landfall_operations ORDER BY id',
      'SELECT owner, operation_id, blob_key, size, digest FROM landfall_references ORDER BY operation_id',
      'SELECT owner, operation_id, name, size, digest FROM files ORDER BY operation_id',
      'SELECT count(*) AS n FROM notes',
    ],
    'read',
  )
  return {
    operations: (operations?.rows ?? []).map((row) => ({
      owner: textOf(row, 'owner'),
      id: textOf(row, 'id'),
      name: textOf(row, 'file_name'),
      size: Number(row['file_size']),
      point: textOf(row, 'point'),
      stalled: row['stalled'] !== 0,
      offset: Number(row['offset']),
      digest: row['digest'] === null ? null : textOf(row, 'digest'),
      blobKey: textOf(row, 'blob_key'),
    })),
    references: (references?.rows ?? []).map((row) => ({
      owner: textOf(row, 'owner'),
      operationId: textOf(row, 'operation_id'),
      blobKey: textOf(row, 'blob_key'),
      size: Number(row['size']),
      digest: textOf(row, 'digest'),
    })),
    rows: (files?.rows ?? []).map((row) => ({
      owner: textOf(row, 'owner'),
      operationId: textOf(row, 'operation_id'),
      name: textOf(row, 'name'),
      size: Number(row['size']),
      digest: textOf(row, 'digest'),
    })),
    blobs: await blobsIn(directory),
    notes: Number(notes?.rows[0]?.['n']),
  }
}

function textOf(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new TypeError(`${column} holds no text`)
  return value
}

async function blobsIn(directory: string): Promise<Map<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  return new Map(
    entries.filter((entry) => entry.isFile()).map(({ name, parentPath }) => [name, join(parentPath, name)]),
  )
}
