import { type ProcessOptions, type RunningProcess, startProcess } from './processes.js'
import { repository } from './repository.js'

export { repository }

/** The header that carries the owner, as a trusted proxy would set it. */
export const OWNER_HEADER = 'x-owner'

/** Settings of `landfall serve` on a directory, on a port of its own choice; `ready[1]` is the origin, `[2]` the port. */
export const landfallServe = (directory: string, env: Readonly<Record<string, string>> = {}): ProcessOptions => ({
  name: 'landfall serve',
  command: process.execPath,
  args: [`${repository}server/dist/cli.js`, 'serve'],
  env: {
    LANDFALL_HOST: '127.0.0.1',
    LANDFALL_PORT: '0',
    LANDFALL_DATA_DIR: directory,
    LANDFALL_OWNER_HEADER: OWNER_HEADER,
    ...env,
  },
  ready: /(http:\/\/127\.0\.0\.1:(\d+))/,
})

/** Starts `landfall serve` and answers its process; its port is `portOf` that. */
export const startLandfall = (directory: string, env: Readonly<Record<string, string>> = {}): Promise<RunningProcess> =>
  startProcess(landfallServe(directory, env))

export const portOf = (server: RunningProcess): number => Number(server.ready[2])
