import { isFinal, isOpen, NEXT, type Point, POINTS } from '@landfall/shared'
import { expect, test } from 'vitest'
import type { Next, Situation, Surroundings } from '../src/sequence/rules.js'
import { drivable, rules } from './model/modules.js'

const NOW = 1_000_000
const SIZES = [0, 10]
const STEPS: readonly (readonly string[])[] = [[], ['scan'], ['scan', 'thumb']]

/** Only an open operation can have stalled. */
const STANDINGS = POINTS.flatMap((point): [Point, boolean][] =>
  isOpen(point)
    ? [
        [point, false],
        [point, true],
      ]
    : [[point, false]],
)

/** Every situation that the ledger's constraints allow, in every world. */
function* everything(): Generator<[Situation, Surroundings]> {
  const worlds = [...surroundings()]
  for (const [point, stalled] of STANDINGS)
    for (const size of SIZES)
      for (const offset of offsetsAt(point, size))
        for (const digest of [null, 'd'])
          for (const digestPending of digest === null ? [true, false] : [false])
            for (const digestDueAt of [null, NOW - 1, NOW, NOW + 1])
              for (const uncleanHolder of [null, 'n1'])
                for (const prepared of [{}, { scan: null }, { thumb: 1 }, { scan: null, thumb: 1 }])
                  for (const cleanupDue of isFinal(point) ? [true, false] : [false])
                    for (const expiresAt of [NOW - 1, NOW, NOW + 1])
                      for (const world of worlds)
                        yield [
                          {
                            point,
                            stalled,
                            file: { size },
                            offset,
                            digest,
                            digestPending,
                            digestDueAt,
                            uncleanHolder,
                            prepared,
                            cleanupDue,
                            expiresAt,
                          },
                          world,
                        ]
}

function* surroundings(): Generator<Surroundings> {
  for (const clockTrusted of [true, false]) {
    yield { now: NOW, clockTrusted, kind: null }
    for (const prepareSteps of STEPS)
      for (const requiresDigest of [true, false])
        yield { now: NOW, clockTrusted, kind: { prepareSteps, requiresDigest } }
  }
}

/** Before the last byte an operation can only be `declared` or have ended. */
const offsetsAt = (point: Point, size: number): number[] =>
  point === 'declared' || isFinal(point) ? [...new Set([0, size / 2, size])] : [size]

/** The points at which a step may be taken, and the points to which it may lead. */
const STEP_TABLE = {
  recover: { at: ['declared'], to: ['declared', 'rejected'] },
  'await-bytes': { at: ['declared'], to: ['declared', 'expired'] },
  expire: { at: ['declared'], to: ['declared', 'expired'] },
  receive: { at: ['declared'], to: ['received'] },
  'await-digest': { at: ['received'], to: ['received', 'rejected', 'sealed'] },
  'give-up-digest': { at: ['received'], to: ['rejected'] },
  seal: { at: ['declared', 'received'], to: ['sealed', 'rejected'] },
  verify: { at: ['sealed'], to: ['verified', 'rejected'] },
  prepare: { at: ['verified'], to: ['verified', 'rejected'] },
  refer: { at: ['verified'], to: ['referenced', 'rejected'] },
  clean: { at: ['cancelled', 'expired', 'rejected'], to: [] },
  leave: { at: ['sealed', 'verified'], to: [] },
  rest: { at: POINTS, to: [] },
} as const satisfies Record<Next['step'], { at: readonly Point[]; to: readonly Point[] }>

test('every situation has exactly one step, and the step is allowed at its point', () => {
  let situations = 0
  for (const [situation, world] of everything()) {
    situations++
    const { step } = rules(situation, world)
    const { at } = STEP_TABLE[step]
    if (!(at as readonly Point[]).includes(situation.point))
      expect.fail(`${step} at ${situation.point}: ${JSON.stringify([situation, world])}`)
  }
  process.stdout.write(`rules: ${situations} situations\n`)
  expect(situations).toBeGreaterThan(50_000)
})

test('a stalled operation rests until it is retried', () => {
  for (const [situation, world] of everything())
    if (situation.stalled) expect(rules(situation, world).step).toBe('rest')
    else if (isOpen(situation.point)) expect(rules(situation, world).step).not.toBe('rest')
})

test('no step leads backwards', () => {
  for (const { at, to } of Object.values(STEP_TABLE))
    for (const from of at as readonly Point[])
      for (const next of to as readonly Point[])
        if (next !== from) expect((NEXT[from] as readonly Point[]).includes(next), `${from} to ${next}`).toBe(true)
})

test('drivable agrees with the rules: an operation that waits for its client or owes nothing is not driven, and all others are', () => {
  for (const [situation, world] of everything()) {
    const { step } = rules(situation, world)
    // A PUT does not drive an expired operation, because its client is present and continues.
    const waits = step === 'await-bytes' || step === 'expire' || step === 'rest'
    if (drivable(situation) === waits) expect.fail(`${step}: ${JSON.stringify([situation, world])}`)
  }
})

test('a clock that is not trusted ends nothing, and no operation with all its bytes expires', () => {
  for (const [situation, world] of everything()) {
    const { step } = rules(situation, world)
    if (step === 'expire') expect(world.clockTrusted && situation.offset < situation.file.size).toBe(true)
    if (step === 'give-up-digest') expect(world.clockTrusted && world.kind?.requiresDigest === true).toBe(true)
  }
})

test('there is no reference before every prepare step has its result', () => {
  for (const [situation, world] of everything()) {
    if (rules(situation, world).step !== 'refer') continue
    const missing = world.kind?.prepareSteps.filter((name) => !Object.hasOwn(situation.prepared, name))
    expect([situation.point, missing]).toEqual(['verified', []])
  }
})

/** The situation after a successful step, including the time that passes. */
function after(situation: Situation, world: Surroundings, next: Next): [Situation, Surroundings] {
  const later = { ...world, now: NOW + 10, clockTrusted: true }
  switch (next.step) {
    case 'recover':
      return [{ ...situation, uncleanHolder: null }, world]
    case 'await-bytes':
    case 'await-digest':
      return [situation, later]
    case 'expire':
      return [{ ...situation, point: 'expired', cleanupDue: true }, world]
    case 'receive':
      return [{ ...situation, point: 'received', digestDueAt: NOW + 1 }, world]
    case 'give-up-digest':
      return [{ ...situation, point: 'rejected', cleanupDue: true }, world]
    case 'seal':
      return [{ ...situation, point: 'sealed' }, world]
    case 'verify':
      return [{ ...situation, point: 'verified' }, world]
    case 'prepare':
      return [{ ...situation, prepared: { ...situation.prepared, [next.name]: null } }, world]
    case 'refer':
      return [{ ...situation, point: 'referenced' }, world]
    case 'clean':
      return [{ ...situation, cleanupDue: false }, world]
    case 'leave':
      return [situation, { ...world, kind: { prepareSteps: [], requiresDigest: false } }]
    case 'rest':
      return [situation, world]
  }
  return next satisfies never
}

test('every situation comes to rest, and rests only if nothing is owed', () => {
  for (let [situation, world] of everything()) {
    for (let steps = 0; ; steps++) {
      const next = rules(situation, world)
      if (next.step === 'rest') {
        if (!situation.stalled) break
        // Only an operator's `retry` continues a stalled operation.
        situation = { ...situation, stalled: false }
      }
      if (steps > 12) expect.fail(`no end: ${JSON.stringify([situation, world])}`)
      ;[situation, world] = after(situation, world, next)
    }
    if (isOpen(situation.point) || situation.cleanupDue) expect.fail(`rests: ${JSON.stringify(situation)}`)
  }
})
