import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Ground } from '../ground/ground.js'
import { portOf, type ProcessOptions, type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import { landfallServe } from './landfall.js'

type Env = Readonly<Record<string, string>>

/** Lines to what the nodes share. Each line is a proxy that can break it. */
export interface Lines {
  /** The line to PostgreSQL. */
  readonly database: Proxy
  /** The line to the object store. */
  readonly store: Proxy
  /** The settings that make a node use these lines. */
  readonly env: Env
}

export async function openLines({ postgres, gateway, databaseUrl, defer }: Ground, url = databaseUrl): Promise<Lines> {
  const database = await startProxy({ targetPort: postgres.port, protocol: 'opaque' })
  defer(database.close)
  const store = await startProxy({ targetPort: gateway.port })
  defer(store.close)
  return {
    database,
    store,
    env: {
      LANDFALL_DATABASE_URL: url.replace(`:${postgres.port}/`, `:${database.port}/`),
      LANDFALL_S3_ENDPOINT: store.origin,
    },
  }
}

/** How `landfall serve` is started as a node on a ground, with its own data directory. */
async function nodeOn(ground: Ground, name: string, env: Env = {}): Promise<ProcessOptions> {
  const directory = join(ground.directory, name)
  await mkdir(directory, { recursive: true })
  return { ...landfallServe(directory, { ...ground.env, ...env }), name }
}

const counts = new WeakMap<Ground, number>()

/** Starts a node without lines. Its connections are named `node-<n>` in `pg_stat_activity`. */
export async function startNode(ground: Ground, env: Env = {}): Promise<RunningProcess> {
  const n = counts.get(ground) ?? 0
  counts.set(ground, n + 1)
  const name = `node-${n}`
  const named = { LANDFALL_DATABASE_URL: `${ground.databaseUrl}&application_name=${name}` }
  const node = await startProcess(await nodeOn(ground, name, { NODE_ENV: 'production', ...named, ...env }))
  ground.defer(() => node.kill('SIGKILL'))
  return node
}

/** One of several nodes, with its own lines. */
export interface Node extends Lines {
  readonly server: RunningProcess
  readonly directory: string
}

/** Several nodes behind a proxy that gives each connection to the next node in rotation. */
export interface Nodes {
  readonly all: readonly Node[]
  /** The proxy in front of the nodes. */
  readonly front: Proxy
  /** The nodes that are out of rotation. They get no new connections. */
  readonly out: ReadonlySet<Node>
  takeOut(node: Node): void
  /**
   * Ends a node. With SIGTERM it is first taken out of rotation, as an operator does; with SIGKILL it is taken out
   * after its death.
   */
  end(node: Node, signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** Starts a node that does not run, and puts it into rotation. */
  start(node: Node): Promise<void>
  /** The last output of each node. */
  output(): string
}

/** Closing the ground closes the nodes. */
export async function openNodes(
  ground: Ground,
  { count = 3, env = {} }: { readonly count?: number; readonly env?: Env } = {},
): Promise<Nodes> {
  async function openNode(n: number): Promise<Node> {
    const lines = await openLines(ground)
    const options = await nodeOn(ground, `node-${n}`, { ...lines.env, ...env })
    const server = await startProcess(options)
    ground.defer(() => server.kill('SIGKILL'))
    return { server, directory: options.env?.['LANDFALL_DATA_DIR'] ?? '', ...lines }
  }
  const all = await Promise.all(Array.from({ length: count }, (_, n) => openNode(n)))
  const front = await startProxy({ targetPort: 0 })
  ground.defer(front.close)
  const out = new Set<Node>()
  const balance = (): void =>
    front.retarget(all.filter((node) => node.server.running && !out.has(node)).map(({ server }) => portOf(server)))
  balance()
  return {
    all,
    front,
    out,
    takeOut(node) {
      out.add(node)
      balance()
    },
    async end(node, signal) {
      if (signal === 'SIGTERM') out.add(node)
      balance()
      await node.server.kill(signal)
      balance()
    },
    async start(node) {
      out.delete(node)
      if (!node.server.running) await node.server.restart()
      balance()
    },
    output: () => all.map(({ server }) => server.output().slice(-3_000)).join('\n'),
  }
}
