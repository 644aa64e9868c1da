import { type Node, type Nodes, openNodes } from '../ground/nodes.js'
import { portOf } from '../ground/landfall.js'
import { startProxy } from '../ground/proxy.js'
import { progressOf, settingsFor } from './landfall-served.js'
import { openSite, type Stage } from './stage.js'
import type { NodesSystem } from './system.js'

/** Several nodes behind a proxy that gives each connection to the next of them, with all that faults need. */
export interface NodesStage extends Stage {
  readonly nodes: Nodes
  /** In order: it is given nothing new before its end. */
  end(node: Node, signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  start(node: Node): Promise<void>
}

const LEASE_MS = 2_000

export async function openNodesStage(system: NodesSystem): Promise<NodesStage> {
  const nodes = await openNodes({ count: system.count, store: 'bluestore', env: settingsFor(LEASE_MS) })
  const proxy = await startProxy({ targetPort: 0 })
  const site = await openSite(system, proxy)
  const ending = new Set<Node>()
  function balance(): void {
    proxy.retarget(
      nodes.all.filter((node) => node.server.running && !ending.has(node)).map(({ server }) => portOf(server)),
    )
  }
  balance()

  async function start(node: Node): Promise<void> {
    if (!node.server.running) await node.server.restart()
    balance()
  }

  return {
    nodes,
    proxy,
    site,
    leaseMs: LEASE_MS,
    async end(node, signal) {
      // Who ends a node in order takes it out first; a death is noticed when it has happened.
      if (signal === 'SIGTERM') ending.add(node)
      balance()
      await node.server.kill(signal)
      ending.delete(node)
      balance()
    },
    start,
    async up() {
      for (const { database, store } of nodes.all) for (const line of [database, store]) line.heal()
      await nodes.mendGateway()
      await Promise.all(nodes.all.map(start))
    },
    look: async () => system.look(await nodes.reader.read()),
    progress: async () => progressOf(await nodes.reader.readLedger()),
    reconcile: async () => system.reconcile(nodes.all[0]?.directory ?? ''),
    output: () => nodes.all.map(({ server }) => server.output().slice(-3_000)).join('\n'),
    async close() {
      await site.close()
      await proxy.close()
      await nodes.close()
    },
  }
}
