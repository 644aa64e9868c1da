import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryDirectory } from './files.js'
import { portOf, type ProcessOptions, type RunningProcess, startProcess } from './processes.js'
import { type Proxy, startProxy } from './proxy.js'

/** One server program on a data directory of its own, behind a proxy that follows it to each new port. */
export interface Place {
  readonly server: RunningProcess
  readonly proxy: Proxy
  /** The server's data. */
  readonly directory: string
  /** Ends what runs and starts it again on the same directory, with the same settings or changed ones. */
  restart(changes?: Partial<ProcessOptions>): Promise<void>
  /** Called by `close`, before what was deferred earlier and before the server is ended. */
  defer(end: () => Promise<unknown>): void
  close(): Promise<void>
}

/** What is there before the server starts. */
export interface Home {
  /** A temporary folder that `close` removes. */
  readonly path: string
  /** The folder in it that becomes the server's data. */
  readonly directory: string
}

/** `program` says how the server is started. It may prepare the home first: the data directory is made after it. */
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
