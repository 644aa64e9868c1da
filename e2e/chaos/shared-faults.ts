import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault as ProxyFault, Proxy, RecordedRequest } from '../ground/proxy.js'
import type { Seeded } from '../ground/seeded.js'
import { between, type Fault } from './fault.js'
import type { NodesStage } from './stage.js'

// The faults on the lines of all nodes to PostgreSQL and to the object store.

type NodesFault = Fault<NodesStage>

/** Applies a fault to the line of each node for a while. */
async function during(
  lines: readonly Proxy[],
  random: Seeded,
  arm: (line: Proxy) => { release(): void },
): Promise<void> {
  const armed = lines.map(arm)
  await sleep(between(random, 2_000, 4_000))
  for (const { release } of armed) release()
}

const storesOf = ({ nodes }: NodesStage): readonly Proxy[] => nodes.all.map(({ store }) => store)
const databasesOf = ({ nodes }: NodesStage): readonly Proxy[] => nodes.all.map(({ database }) => database)

const reset = (name: string, linesOf: (stage: NodesStage) => readonly Proxy[]): NodesFault => ({
  name,
  async strike(stage) {
    for (const line of linesOf(stage)) line.resetConnections()
  },
})

const answersLost = (name: string, words: RegExp): NodesFault => ({
  name,
  strike: (stage, random) =>
    during(databasesOf(stage), random, (line) =>
      line.loseAnswers((sent) => words.test(sent.toString('latin1')), 1 + random.below(3)),
    ),
})

const changes = ({ method }: RecordedRequest): boolean => method !== 'GET' && method !== 'HEAD'
const hasBody = ({ method, headers }: RecordedRequest): boolean =>
  method === 'PUT' && Number(headers['content-length'] ?? 0) > 0

const store = (
  name: string,
  fault: (random: Seeded) => ProxyFault,
  arming: (random: Seeded) => { match?: (request: RecordedRequest) => boolean; times: number },
): NodesFault => ({
  name,
  strike: (stage, random) => during(storesOf(stage), random, (line) => line.arm(fault(random), arming(random))),
})

const refusal = (status: number, code: string): ProxyFault => ({
  kind: 'answer',
  status,
  headers: { 'content-type': 'application/xml' },
  body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`,
})

const some = (random: Seeded): { times: number } => ({ times: 1 + random.below(6) })

export const SHARED_FAULTS: readonly NodesFault[] = [
  reset('PostgreSQL: connections of all nodes reset', databasesOf),
  answersLost('PostgreSQL: answers to COMMIT lost', /^Q....commit/is),
  answersLost('PostgreSQL: answers to other writes lost', /INSERT INTO landfall|UPDATE landfall|DELETE FROM landfall/),
  reset('S3: connections of all nodes reset', storesOf),
  store(
    'S3: bodies cut by a reset',
    (random) => ({ kind: 'reset', afterBodyBytes: random.below(300_000) }),
    (random) => ({ match: hasBody, ...some(random) }),
  ),
  store(
    'S3: answers lost',
    (random) => ({ kind: 'swallow-answer', ending: random.pick(['reset', 'fin']) }),
    (random) => ({ match: changes, ...some(random) }),
  ),
  store('S3: 503 SlowDown', () => refusal(503, 'SlowDown'), some),
  store('S3: 500 InternalError', () => refusal(500, 'InternalError'), some),
]
