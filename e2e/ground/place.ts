import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryDirectory } from './files.js'
import { portOf, type ProcessOptions, type RunningProcess, startProcess } from './processes.js'
import { type Proxy, startProxy } from './proxy.js'

/** One server program with its own data directory, behind a proxy that follows it to each new port. */
export interface Place {
  readonly server: RunningProcess
  readonly proxy: Proxy
  /** The server's data. */
  readonly directory: string
  /** Ends the server and starts it again on the same directory, with the same settings or with changed ones. */
  restart(changes?: Partial<ProcessOptions>): Promise<void>
  /**
   * Registers a function that `close` calls before it ends the server. Functions that were registered later are called
   * first.
   */
  defer(end: () => Promise<unknown>): void
  close(): Promise<void>
}

/** What exists before the server starts. */
export interface Home {
  /** A temporary folder that `close` removes. */
  readonly path: string
  /** The folder inside `path` that becomes the server's data directory. */
  readonly directory: string
}

/**
 * `program` says how the server is started. It may prepare the home first, because the data directory is made after
 * `program` returns.
 */
export async function openPlace(program: (home: Home) => ProcessOptions | Promise<ProcessOptions>): Promise<Place> {
  const home = await temporaryDirectory('landfall-place-')
  const directory = join(home.path, 'data')
  const options = await program({ path: home.path, directory })
  await mkdir(directory, { recursive: true })
  const server = await startProcess(options)
  const proxy = await startProxy({ targetPort: portOf(server) })
  const closing: (() => Promise<unknown>)[] = [home.remove, () => server.kill('SIGKILL'), proxy.close]
  return {
    server,
    proxy,
    directory,
    async restart(changes) {
      await server.restart(changes)
      proxy.retarget(portOf(server))
    },
    defer: (end) => void closing.push(end),
    async close() {
      for (const end of closing.splice(0).toReversed()) await end()
    },
  }
}
