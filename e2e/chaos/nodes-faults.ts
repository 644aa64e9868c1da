import { setTimeout as sleep } from 'node:timers/promises'
import type { Node } from '../programs/nodes.js'
import type { Proxy } from '../ground/proxy.js'
import type { Daemon } from '../ground/s3.js'
import type { Seeded } from '../ground/seeded.js'
import { between, type Fault } from './fault.js'
import { LINE_FAULTS } from './line-faults.js'
import type { NodesStage } from './stage.js'
import { SHARED_FAULTS } from './shared-faults.js'

// The faults of nodes: of one node, of all nodes, and of their lines to what they share.

type NodesFault = Fault<NodesStage>

const killed: NodesFault = {
  name: 'node: SIGKILL, restart',
  often: true,
  async strike(stage, random) {
    const node = random.pick(stage.nodes.all)
    await stage.nodes.end(node, 'SIGKILL')
    await sleep(random.below(4_000))
    await stage.nodes.start(node)
  },
}

const allKilled: NodesFault = {
  name: 'all nodes: SIGKILL, restart',
  async strike(stage, random) {
    await Promise.all(stage.nodes.all.map((node) => stage.nodes.end(node, 'SIGKILL')))
    await sleep(random.below(2_000))
    await Promise.all(stage.nodes.all.map((node) => stage.nodes.start(node)))
  },
}

const rolled: NodesFault = {
  name: 'nodes: SIGTERM, restart, one after the other',
  async strike(stage, random) {
    for (const node of random.shuffled(stage.nodes.all)) {
      await stage.nodes.end(node, 'SIGTERM')
      await stage.nodes.start(node)
    }
  },
}

const beyondLease = (leaseMs: number, random: Seeded): number => leaseMs + between(random, 500, 2_500)

async function stopFor(nodes: readonly Node[], ms: number): Promise<void> {
  for (const { server } of nodes) process.kill(server.pid, 'SIGSTOP')
  await sleep(ms)
  for (const { server } of nodes) process.kill(server.pid, 'SIGCONT')
}

const stopped: NodesFault = {
  name: 'node: SIGSTOP beyond the lease, SIGCONT',
  strike: ({ nodes, leaseMs }, random) => stopFor([random.pick(nodes.all)], beyondLease(leaseMs, random)),
}

const allStopped: NodesFault = {
  name: 'all nodes: SIGSTOP beyond the lease, SIGCONT',
  strike: ({ nodes, leaseMs }, random) => stopFor(nodes.all, beyondLease(leaseMs, random)),
}

/** The node gets no answer any more. To the other nodes it looks as if it had stopped. */
const cutOff = (name: string, lineOf: (node: Node) => Proxy): NodesFault => ({
  name,
  async strike({ nodes, leaseMs }, random) {
    const line = lineOf(random.pick(nodes.all))
    line.cut('black-hole')
    await sleep(beyondLease(leaseMs, random))
    line.heal()
  },
})

/**
 * A failover whose old host has vanished. Existing connections get no answer any more, and new connections to the same
 * name reach the database.
 */
const gone = (name: string, which: (nodes: readonly Node[], random: Seeded) => readonly Node[]): NodesFault => ({
  name,
  async strike({ nodes }, random) {
    for (const { database } of which(nodes.all, random)) database.strandConnections()
    await sleep(between(random, 2_000, 5_000))
  },
})

const gatewayKilled = (...daemons: readonly Daemon[]): NodesFault => ({
  name: `S3 gateway: ${daemons.join(', ')} SIGKILL, restart`,
  async strike({ ground }, random) {
    ground.gateway.kill(...daemons)
    await sleep(random.below(1_500))
    await ground.mendGateway()
  },
})

const postgresRestarted = (how: 'fast' | 'immediate'): NodesFault => ({
  name: `PostgreSQL: ${how} restart`,
  strike: ({ ground }) => ground.postgres.restart(how),
})

export const NODES_FAULTS: readonly NodesFault[] = [
  killed,
  allKilled,
  rolled,
  stopped,
  allStopped,
  cutOff('node: cut off from PostgreSQL beyond the lease', ({ database }) => database),
  cutOff('node: cut off from S3 beyond the lease', ({ store }) => store),
  gone('node: its connections to PostgreSQL go silent, new ones pass', (all, random) => [random.pick(all)]),
  gone('all nodes: their connections to PostgreSQL go silent, new ones pass', (all) => all),
  gatewayKilled('rgw'),
  gatewayKilled('osd'),
  gatewayKilled('mon'),
  gatewayKilled('rgw', 'osd', 'mon'),
  postgresRestarted('fast'),
  postgresRestarted('immediate'),
  ...SHARED_FAULTS,
  ...LINE_FAULTS,
]
