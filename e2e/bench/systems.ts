import { existsSync } from 'node:fs'
import { nodeServer, type ProcessOptions } from '../ground/processes.js'
import { compiled } from '../ground/repository.js'
import { landfallServe, SERVER_FOLDER } from '../programs/landfall.js'

export type SystemName = 'landfall' | 'before' | 'tus' | 'tus-sync' | 'pipe' | 'tus-s3' | 'raw-s3'
type Env = Readonly<Record<string, string>>

/** A server that is measured: how it is started on a directory, and which protocol the load generator uses. */
export interface System {
  readonly name: SystemName
  readonly title: string
  readonly speak: 'landfall' | 'tus' | 'put'
  start(directory: string, env: Env): ProcessOptions
}

const landfall = (serverFolder: string): System => ({
  name: 'landfall',
  title: 'Landfall',
  speak: 'landfall',
  start: (directory, env) => landfallServe(directory, { NODE_ENV: 'production', ...env }, serverFolder),
})

const peer = (name: Exclude<SystemName, 'landfall' | 'before'>, title: string): System => ({
  name,
  title,
  speak: name === 'pipe' || name === 'raw-s3' ? 'put' : 'tus',
  start: (directory, env) =>
    nodeServer(compiled('programs/tus-peer'), [name, directory], { NODE_ENV: 'production', ...env }),
})

const SYSTEMS: readonly System[] = [
  landfall(SERVER_FOLDER),
  peer('tus', '@tus/server, hook inserts a row'),
  peer('tus-sync', 'the same, file synced before'),
  peer('pipe', '`request.pipe(file)`, no row'),
  peer('tus-s3', '@tus/server, @tus/s3-store'),
  peer('raw-s3', 'the SDK alone'),
]

/** The built server of another checkout of this repository, such as that of the commit before a change. */
export const earlier = (checkout: string): System => ({
  ...landfall(`${checkout}/server`),
  name: 'before',
  title: 'Landfall, the other checkout',
})

/** Those of these names that can be started here. Landfall is one of them only if it was built. */
export const systemsOf = (names: readonly string[]): System[] =>
  SYSTEMS.filter(({ name }) => names.includes(name)).filter(
    ({ name }) => name !== 'landfall' || existsSync(`${SERVER_FOLDER}/dist/cli.js`),
  )
