import { repository } from '../ground/repository.js'
import { nodeServer, type ProcessOptions, type RunningProcess, startProcess } from '../ground/processes.js'

type Env = Readonly<Record<string, string>>

/** The header that names the owner, as a trusted proxy would set it. */
export const OWNER_HEADER = 'x-owner'

/** This repository's server. Each mutation has a changed copy in another folder. */
export const SERVER_FOLDER = `${repository}server`

/** How `landfall serve` is started on a directory. It chooses a free port. */
export const landfallServe = (directory: string, env: Env = {}, serverFolder = SERVER_FOLDER): ProcessOptions => ({
  ...nodeServer(`${serverFolder}/dist/cli.js`, ['serve'], {
    LANDFALL_HOST: '127.0.0.1',
    LANDFALL_PORT: '0',
    LANDFALL_DATA_DIR: directory,
    LANDFALL_OWNER_HEADER: OWNER_HEADER,
    ...env,
  }),
  name: 'landfall serve',
})

export const startLandfall = (directory: string, env: Env = {}): Promise<RunningProcess> =>
  startProcess(landfallServe(directory, env))
