import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { landfallServe, repository } from '../ground/landfall.js'
import type { ProcessOptions } from '../ground/processes.js'

export type SystemName = 'landfall' | 'before' | 'tus' | 'tus-sync' | 'pipe'

/** A server that is measured: how it is started on a directory, and what the load generator speaks with it. */
export interface System {
  readonly name: SystemName
  readonly title: string
  readonly speak: 'landfall' | 'tus' | 'put'
  start(directory: string): ProcessOptions
}

/** A compiled program of ours, by its path below `e2e/dist/`. */
export const compiled = (path: string): string => `${repository}e2e/dist/${path}`

const READY = /(http:\/\/[\w.:[\]]+)/

const landfall: System = {
  name: 'landfall',
  title: 'Landfall',
  speak: 'landfall',
  start: (directory) => landfallServe(directory, { NODE_ENV: 'production' }),
}

const peer = (name: 'tus' | 'tus-sync' | 'pipe', title: string): System => ({
  name,
  title,
  speak: name === 'pipe' ? 'put' : 'tus',
  start: (directory) => ({
    name,
    command: process.execPath,
    args: [compiled('programs/tus-peer.js'), name, directory],
    env: { NODE_ENV: 'production' },
    ready: READY,
  }),
})

const SYSTEMS: readonly System[] = [
  landfall,
  peer('tus', '@tus/server, hook inserts a row'),
  peer('tus-sync', 'the same, file synced before'),
  peer('pipe', '`request.pipe(file)`, no row'),
]

/** The server of another checkout of this repository that was built, such as that of the commit before a change. */
export const earlier = (checkout: string): System => ({
  ...landfall,
  name: 'before',
  title: 'Landfall, the other checkout',
  start: (directory) => {
    const options = landfall.start(directory)
    return {
      ...options,
      name: 'before',
      args: [join(checkout, 'server/dist/cli.js'), ...(options.args ?? []).slice(1)],
    }
  },
})

/** Those that can be started here: Landfall only once it was built. */
export const availableSystems = (): System[] =>
  SYSTEMS.filter(({ name }) => name !== 'landfall' || existsSync(`${repository}server/dist/cli.js`))
