import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import { openPageSite } from '../clients/page.js'
import { openGround } from '../ground/ground.js'
import { type Node, openNodes } from '../programs/nodes.js'
import { startReceiver } from '../programs/receiver.js'
import { openNodesReader } from '../truth/nodes-reader.js'
import { type Moments, watchMoments } from './moments.js'
import { INTERVAL_MS, LEASE_MS, untilQuiet, type World } from './world.js'

/** Three nodes on PostgreSQL and S3, behind a proxy that gives each connection to the next node that lives. */
export interface NodesWorld extends World, Pick<Moments, 'struck'> {
  /** Starts the nodes that died again. */
  mend(): Promise<void>
}

/** Long enough that nodes do everything at least once that they repeat without any upload. */
const IDLE_MS = 6_000

export async function openNodesWorld(): Promise<NodesWorld> {
  const ground = await openGround()
  const receiver = await startReceiver()
  ground.defer(receiver.close)
  const nodes = await openNodes(ground, {
    env: {
      LANDFALL_COMPLETER_INTERVAL_MS: String(INTERVAL_MS),
      LANDFALL_LEASE_MS: String(LEASE_MS),
      LANDFALL_LOG_LEVEL: 'warn',
      ...receiver.settings,
    },
  })
  const reader = openNodesReader(ground)
  ground.defer(reader.end)
  const site = await openPageSite(nodes.front.port)
  ground.defer(site.close)
  const buried: number[] = []
  const moments = watchMoments(nodes.all, (node) => {
    buried.push(node.server.pid)
    nodes.takeOut(node)
  })
  /**
   * An effect that a dead node had taken is delivered again only after some minutes. To avoid that wait, it is made due
   * now.
   */
  async function hasten(): Promise<void> {
    const client = new Client({ connectionString: ground.databaseUrl })
    await client.connect()
    await client.query(
      `UPDATE landfall_effects SET due_at = 0, holder = NULL
       WHERE delivered_at IS NULL AND due_at IS NOT NULL AND split_part(holder, '/', 2) = ANY($1)`,
      [buried.map(String)],
    )
    await client.end()
  }
  async function start(node: Node): Promise<void> {
    // The signal was sent, but this process may not know of the node's end yet.
    await node.server.exited
    await nodes.start(node).catch((error: unknown) => {
      // The node was killed while it started, and is out of rotation again.
      if (!nodes.out.has(node)) throw error
    })
  }
  moments.plan(null)
  await sleep(IDLE_MS)
  moments.ignore(moments.calls().map(({ name }) => name))

  return {
    ...moments,
    async plan(kill) {
      moments.plan(kill)
      return 'planned'
    },
    proxy: nodes.front,
    site,
    received: receiver.received,
    async mend() {
      while (nodes.out.size > 0) await Promise.all([...nodes.out].map(start))
    },
    untilQuiet: (withinMs) =>
      untilQuiet(
        async () => {
          if (buried.length > 0) await hasten()
          return reader
        },
        { withinMs, everyMs: 100, output: nodes.output },
      ),
    output: nodes.output,
    close: ground.close,
  }
}
