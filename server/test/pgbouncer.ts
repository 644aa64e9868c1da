import { spawn } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Client } from 'pg'
import { type Postgres, unprivileged } from '../../e2e/ground/postgres.js'
import { temporaryDirectory } from '../../e2e/ground/files.js'
import { eventually } from './harness.js'
import { freePort } from './nginx.js'

/** PgBouncer in transaction mode: each transaction on whatever connection is free, and nothing of a session stays. */
export async function startPgBouncer(program: string, { port: serverPort }: Postgres) {
  const { path: home, remove } = await temporaryDirectory('landfall-pgbouncer-')
  const port = await freePort()
  // It does not run as root either.
  await chmod(home, 0o755)
  const settings = join(home, 'pgbouncer.ini')
  await writeFile(
    settings,
    `[databases]
* = host=127.0.0.1 port=${serverPort} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_idle_timeout = 1
`,
  )
  const isRoot = process.getuid?.() === 0
  const child = spawn(program, ['--quiet', settings], { ...(isRoot ? await unprivileged() : {}), stdio: 'ignore' })
  const exited = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const onExit = (): void => void child.kill('SIGKILL')
  process.on('exit', onExit)
  const urlOf = (database: string): string => `postgres://postgres@127.0.0.1:${port}/${database}`
  const answers = async (): Promise<boolean> => {
    const client = new Client({ connectionString: urlOf('postgres') })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.query('SELECT 1')
      return true
    } catch {
      return false
    } finally {
      await client.end()
    }
  }
  await eventually(answers, (isUp) => isUp, 10_000)
  let databases = 0
  return {
    /** The URL of an empty database: what a schema of one's own needs, a setting of the session, is not passed on. */
    async database(): Promise<string> {
      const name = `pooled_${(databases += 1)}`
      const client = new Client({ host: '127.0.0.1', port: serverPort, user: 'postgres', database: 'postgres' })
      await client.connect()
      await client.query(`CREATE DATABASE ${name}`)
      await client.end()
      return urlOf(name)
    },
    async stop(): Promise<void> {
      process.off('exit', onExit)
      child.kill('SIGKILL')
      await exited
      await remove()
    },
  }
}
