import { join } from 'node:path'
import { landfallServe, repository } from '../ground/landfall.js'
import { openReader } from '../truth/reader.js'
import { lookedAt, reconcile, SERVED, settingsFor } from './landfall-served.js'
import type { DirectorySystem } from './system.js'

/** `serverFolder`: a changed copy of the server, whose faults must show; default: this repository's. */
export function landfallSystem(serverFolder = join(repository, 'server')): DirectorySystem {
  const cli = join(serverFolder, 'dist/cli.js')
  return {
    ...SERVED,
    on: 'directory',
    name: 'landfall',
    title: 'Landfall',
    program: (directory, leaseMs) => ({ ...landfallServe(directory, settingsFor(leaseMs)), args: [cli, 'serve'] }),
    bytesDirectory: (directory) => join(directory, 'blobs'),
    databaseFile: (directory) => join(directory, 'landfall.db'),
    smallFiles: async (directory) => [
      { path: join(directory, 'blobs', 'mark.json'), refuses: null },
      { path: join(directory, 'blobs', 'store.json'), refuses: /store\.json in the directory of blobs cannot be read/ },
    ],
    async look(directory) {
      const reader = openReader(directory)
      try {
        return lookedAt(await reader.read())
      } finally {
        await reader.end()
      }
    },
    reconcile: (directory) => reconcile(cli, directory),
  }
}
