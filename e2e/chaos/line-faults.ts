import { setTimeout as sleep } from 'node:timers/promises'
import type { RecordedRequest } from '../ground/proxy.js'
import { between, type Fault } from './fault.js'

// The faults on the line between clients and servers.

const hasBody = ({ method }: RecordedRequest): boolean => method === 'PATCH'
const changes = ({ method }: RecordedRequest): boolean => ['PATCH', 'POST', 'PUT'].includes(method)

const reset: Fault = {
  name: 'connections reset',
  async strike({ proxy }) {
    proxy.resetConnections()
  },
}

const closed: Fault = {
  name: 'connections closed',
  async strike({ proxy }) {
    proxy.closeConnections()
  },
}

const cutBodies: Fault = {
  name: 'resets in the middle of a body',
  async strike({ proxy }, random) {
    const armed = Array.from({ length: 3 }, () =>
      proxy.arm({ kind: 'reset', afterBodyBytes: random.below(300_000) }, { match: hasBody }),
    )
    await sleep(between(random, 2_000, 4_000))
    for (const { release } of armed) release()
  },
}

const swallowed: Fault = {
  name: 'answers swallowed',
  async strike({ proxy }, random) {
    const ending = random.pick(['reset', 'fin'] as const)
    const armed = proxy.arm({ kind: 'swallow-answer', ending }, { match: changes, times: 1 + random.below(4) })
    await sleep(between(random, 2_000, 4_000))
    armed.release()
  },
}

const silent: Fault = {
  name: 'black hole for requests',
  async strike({ proxy }, random) {
    const armed = proxy.arm({ kind: 'black-hole', afterBodyBytes: random.below(100_000) }, { match: hasBody, times: 2 })
    await sleep(between(random, 3_000, 6_000))
    armed.release()
  },
}

const cut: Fault = {
  name: 'black hole for all',
  async strike({ proxy }, random) {
    proxy.cut('black-hole')
    await sleep(between(random, 1_500, 6_000))
    proxy.heal()
  },
}

/** The order is fixed, because seeds depend on it. */
export const LINE_FAULTS: readonly Fault[] = [reset, closed, cutBodies, swallowed, silent, cut]
