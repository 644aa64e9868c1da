import * as fc from 'fast-check'
import type { Client } from './client.js'
import type { ModelDatabase } from './database.js'
import type { Tally } from './enumerate.js'
import { ENDING, type Fault, HOWS, type How, strikeOf } from './faults.js'
import { createHistory, seeded } from './history.js'
import { SCENARIOS, type Scenario } from './scenarios.js'

interface Uploads {
  readonly clients: Client[]
}
type History = ReturnType<typeof createHistory>

/** The state of the model itself: the number of uploads. */
interface Count {
  uploads: number
}

class Begin implements fc.AsyncCommand<Count, Uploads & { history: History }> {
  readonly scenario: Scenario
  constructor(scenario: Scenario) {
    this.scenario = scenario
  }
  check = (count: Readonly<Count>): boolean => count.uploads < 4
  async run(count: Count, { clients, history }: Uploads & { history: History }): Promise<void> {
    const client = history.upload(this.scenario, 10 + count.uploads++)
    clients.push(client)
    const going = client.upload().catch(() => {})
    history.pending.add(going)
    void going.finally(() => history.pending.delete(going))
    await history.world.quiet()
  }
  toString = (): string => `begin(${this.scenario.name})`
}

/** A fault of one of the uploads between two calls. */
class Happen implements fc.AsyncCommand<Count, Uploads & { history: History }> {
  readonly which: number
  readonly how: How
  constructor(which: number, how: How) {
    this.which = which
    this.how = how
  }
  check = (count: Readonly<Count>): boolean => count.uploads > 0
  async run(_count: Count, { clients, history }: Uploads & { history: History }): Promise<void> {
    const { world } = history
    const client = clients[this.which % clients.length]
    if (client === undefined) return
    const stage = history.aim(client)
    if (stage === null) return
    if (ENDING.has(this.how)) history.disturbed()
    const strike = strikeOf(this.how, stage)
    const crossing = { index: -1, call: 'between', server: world.server(), append: null }
    await strike.before?.(crossing)
    await strike.after?.(crossing)
    await world.quiet()
  }
  toString = (): string => `${this.how}(${this.which})`
}

class Pass implements fc.AsyncCommand<Count, Uploads & { history: History }> {
  readonly ms: number
  constructor(ms: number) {
    this.ms = ms
  }
  check = (): boolean => true
  run = (_count: Count, { history }: { history: History }): Promise<void> => history.world.pass(this.ms)
  toString = (): string => `pass(${this.ms})`
}

/** Several uploads at a time. Faults happen at boundaries, which are counted over all uploads, and between them. */
export function histories(database: ModelDatabase, tally: Tally): fc.IAsyncPropertyWithHooks<unknown[]> {
  const faults: fc.Arbitrary<Fault[]> = fc.array(fc.record({ at: fc.nat(120), how: fc.constantFrom(...HOWS) }), {
    maxLength: 5,
  })
  const commands = fc.commands(
    [
      fc
        .constantFrom(...SCENARIOS.filter(({ exclusive }) => exclusive !== true))
        .map((scenario) => new Begin(scenario)),
      fc.tuple(fc.nat(3), fc.constantFrom(...HOWS)).map(([which, how]) => new Happen(which, how)),
      fc.constantFrom(20, 1_000, 31_000, 61_000).map((ms) => new Pass(ms)),
    ],
    { maxCommands: 12 },
  )
  return fc.asyncProperty(commands, faults, fc.boolean(), async (all, struck, exclusive) => {
    const random = Math.random
    Math.random = seeded(7)
    const history = createHistory(database, { exclusive, faults: struck })
    try {
      await fc.asyncModelRun(() => ({ model: { uploads: 0 }, real: { clients: [], history } }), all)
    } finally {
      const { violations } = await history.end()
      Math.random = random
      tally.histories++
      if (violations.length > 0) throw new Error(violations.join('\n')) // oxlint-disable-line no-unsafe-finally -- what ended the run early is of less interest
    }
  })
}
