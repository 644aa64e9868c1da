import { setTimeout as sleep } from 'node:timers/promises'
import type { Browser, BrowserContext, Page } from '@playwright/test'
import { portOf } from '../../ground/landfall.js'
import { type Node, openNodes } from '../../ground/nodes.js'
import { type Proxy, startProxy } from '../../ground/proxy.js'
import { Client } from 'pg'
import { isQuiet, type Stored } from '../../truth/stored.js'
import { openSweptSite, startReceiver, visitSite } from '../../programs/surroundings.js'
import { type Moments, watchMoments } from './moments.js'

/** Three nodes on PostgreSQL and S3, behind a proxy that gives each connection to the next of those that live. */
export interface NodesWorld extends Moments {
  /** Before the nodes. */
  readonly proxy: Proxy
  readonly received: ReadonlyMap<string, ReadonlySet<string>>
  /** Starts again those that died. */
  mend(): Promise<void>
  /** @throws when something still moves after `withinMs` */
  untilQuiet(withinMs?: number): Promise<Stored>
  visit(browser: Browser): Promise<{ page: Page; context: BrowserContext }>
  output(): string
  close(): Promise<void>
}

const LEASE_MS = 1_000
const INTERVAL_MS = 200
/** Long enough for everything that nodes do again and again without any upload. */
const IDLE_MS = 6_000

export async function openNodesWorld(): Promise<NodesWorld> {
  const receiver = await startReceiver()
  const nodes = await openNodes({
    count: 3,
    store: 'memstore',
    env: {
      LANDFALL_COMPLETER_INTERVAL_MS: String(INTERVAL_MS),
      LANDFALL_LEASE_MS: String(LEASE_MS),
      LANDFALL_LOG_LEVEL: 'warn',
      ...receiver.settings,
    },
  })
  const proxy = await startProxy({ targetPort: 0 })
  const dead = new Set<Node>()
  function balance(): void {
    proxy.retarget(nodes.all.filter((node) => !dead.has(node)).map(({ server }) => portOf(server)))
  }
  balance()
  const site = await openSweptSite(proxy.port)
  const buried: number[] = []
  const moments = watchMoments(nodes.all, (node) => {
    dead.add(node)
    buried.push(node.server.pid)
    balance()
  })
  /** An effect that a dead node had in hand comes again after some minutes; that is not waited for: it is due now. */
  async function hasten(): Promise<void> {
    const client = new Client({ connectionString: nodes.databaseUrl })
    await client.connect()
    await client.query(
      `UPDATE landfall_effects SET due_at = 0, holder = NULL
       WHERE delivered_at IS NULL AND due_at IS NOT NULL AND split_part(holder, '/', 2) = ANY($1)`,
      [buried.map(String)],
    )
    await client.end()
  }
  async function start(node: Node): Promise<void> {
    dead.delete(node)
    await node.server.restart().catch((error: unknown) => {
      if (!dead.has(node)) throw error
    })
  }
  moments.plan(null)
  await sleep(IDLE_MS)
  moments.ignore(moments.calls().map(({ name }) => name))

  return {
    ...moments,
    proxy,
    received: receiver.received,
    async mend() {
      // Whoever is killed while it starts is started once more.
      while (dead.size > 0) await Promise.all([...dead].map(start))
      balance()
    },
    async untilQuiet(withinMs = 20_000) {
      for (const deadline = performance.now() + withinMs; ; await sleep(100)) {
        const isLate = performance.now() > deadline
        if (buried.length > 0) await hasten()
        const now = await nodes.reader.readMoving()
        const stored = isQuiet(now) ? await nodes.reader.read() : null
        // What a node deletes behind the end of an upload may take a moment more; what stays is told.
        if (stored !== null && isQuiet(stored) && (stored.leftovers.length === 0 || isLate)) return stored
        if (!isLate) continue
        const moving = now.operations.filter(({ point }) => point !== 'completed')
        throw new Error(`something still moves after ${withinMs} ms:\n${JSON.stringify(moving, null, 1)}`)
      }
    },
    visit: (browser) => visitSite(browser, site),
    output: () => nodes.all.map(({ server }) => server.output().slice(-1_500)).join('\n'),
    async close() {
      await site.close()
      await proxy.close()
      await nodes.close()
      await receiver.close()
    },
  }
}
