import type { RecordedRequest } from '../ground/proxy.js'
import { s3CallOf, s3FolderOf } from '../ground/s3.js'
import type { Node } from '../programs/nodes.js'
import { createSqlNames, sqlOf } from './sql-names.js'
import type { Kill, Point } from './world.js'

/**
 * Numbers every call of all nodes to PostgreSQL and to the object store, as it passes on their lines. At the planned
 * call it kills the node that made it with SIGKILL: right before the call reaches the other side, or when the other
 * side has answered and the node does not know it yet.
 */
export interface Moments {
  /** Counts from 1 again. Null: no node is killed. */
  plan(kill: Kill | null): void
  /** The calls since the last plan, except those that are ignored. */
  calls(): Point[]
  /** Resolves with the node that was killed since the last plan. */
  struck(): Promise<Node>
  /** From now on, calls with these names do not count: nodes make them without any upload. */
  ignore(names: Iterable<string>): void
}

export function watchMoments(nodes: readonly Node[], died: (node: Node) => void): Moments {
  let plan: Kill | null = null
  let counts = new Map<string, number>()
  let points: Point[] = []
  let strike = (_node: Node): void => {}
  let struck = new Promise<Node>((resolve) => (strike = resolve))
  let releases: (() => void)[] = []
  const ignored = new Set<string>()

  /** Numbers a call. Returns when the node is to be killed, or null if this is not the planned call. */
  function meets(name: string): Kill['when'] | null {
    if (ignored.has(name)) return null
    const nth = (counts.get(name) ?? 0) + 1
    counts.set(name, nth)
    points.push({ name, nth })
    if (plan === null || plan.name !== name || plan.nth !== nth) return null
    const { when } = plan
    plan = null
    return when
  }

  function kill(node: Node): void {
    try {
      process.kill(node.server.pid, 'SIGKILL')
    } catch {
      // The node has ended already, and had sent this before its end. No process waits for the answer.
      return
    }
    died(node)
    strike(node)
  }

  function watchDatabase(node: Node): void {
    const nameOf = createSqlNames()
    node.database.intercept((bytes, connection) => {
      const sql = sqlOf(bytes)
      const when = sql === null ? null : meets(nameOf(sql, connection))
      if (when === null) return null
      return {
        at: when === 'before' ? 'request' : 'answer',
        strike: () => {
          kill(node)
          return 'silence'
        },
      }
    })
  }

  /** The next plan releases a connection that is held. The node is dead by then. */
  function watchStore(node: Node): void {
    let after: RecordedRequest | null = null
    const before = (request: RecordedRequest): boolean => {
      const when = meets(`${s3CallOf(request.method, request.path)} ${s3FolderOf(request.path)}`)
      if (when === 'after') after = request
      if (when === 'before') kill(node)
      return when === 'before'
    }
    const isAfter = (request: RecordedRequest): boolean => {
      if (request !== after) return false
      void node.store
        .waitFor((one) => one === request && one.endedAtMs !== null)
        .then(
          () => kill(node),
          () => {},
        )
      return true
    }
    const held = node.store.arm({ kind: 'black-hole' }, { match: before, times: Infinity })
    const lost = node.store.arm({ kind: 'swallow-answer', ending: 'black-hole' }, { match: isAfter, times: Infinity })
    releases.push(held.release, lost.release)
  }

  for (const node of nodes) {
    watchDatabase(node)
    watchStore(node)
  }
  return {
    plan(wanted) {
      for (const release of releases.splice(0)) release()
      for (const node of nodes) {
        node.store.forget()
        watchStore(node)
      }
      plan = wanted
      counts = new Map()
      points = []
      struck = new Promise((resolve) => (strike = resolve))
    },
    calls: () => points,
    struck: () => struck,
    ignore(names) {
      for (const name of names) ignored.add(name)
    },
  }
}
