import { join } from 'node:path'
import { repository } from '../ground/landfall.js'
import { lookedAt, reconcile, SERVED } from './landfall-served.js'
import type { NodesSystem } from './system.js'

/** Three `landfall serve` of this repository on PostgreSQL and S3, behind a balancer that knows no sessions. */
export const nodesSystem = (): NodesSystem => ({
  ...SERVED,
  on: 'nodes',
  name: 'nodes',
  title: 'Landfall, three nodes on PostgreSQL and S3',
  count: 3,
  look: lookedAt,
  reconcile: (directory) => reconcile(join(repository, 'server/dist/cli.js'), directory),
})
