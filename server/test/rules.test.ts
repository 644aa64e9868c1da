import { OPEN_POINTS, POINTS } from '@landfall/shared'
import { describe, expect, test } from 'vitest'
import { drivable, rules, type Situation, type Surroundings } from '../src/sequence/rules.js'

const NOW = 1_000_000
const whole: Situation = {
  point: 'declared',
  stalled: false,
  offset: 10,
  file: { size: 10 },
  digest: null,
  digestPending: false,
  digestDueAt: null,
  uncleanHolder: null,
  prepared: {},
  cleanupDue: false,
  expiresAt: NOW + 1,
}
const world: Surroundings = { now: NOW, clockTrusted: true, kind: { prepareSteps: [], requiresDigest: false } }
const stepOf = (situation: Partial<Situation>, surroundings: Partial<Surroundings> = {}) =>
  rules({ ...whole, ...situation }, { ...world, ...surroundings })

describe('declared', () => {
  test.each([
    [{ offset: 5 }, {}, { step: 'await-bytes', untilAt: NOW + 1 }],
    [{ offset: 5, uncleanHolder: 'n1' }, {}, { step: 'recover' }],
    [{ offset: 5, uncleanHolder: 'n1', expiresAt: NOW }, {}, { step: 'recover' }],
    [{ offset: 5, expiresAt: NOW }, {}, { step: 'expire' }],
    [{ offset: 5, expiresAt: NOW }, { clockTrusted: false }, { step: 'await-bytes', untilAt: NOW }],
    [{ offset: 5, expiresAt: NOW }, { kind: null }, { step: 'expire' }],
    [{ expiresAt: NOW - 1 }, {}, { step: 'seal' }],
    [{ uncleanHolder: 'n1' }, {}, { step: 'seal' }],
    [{ digestPending: true }, {}, { step: 'receive' }],
    [{ offset: 0, file: { size: 0 } }, {}, { step: 'seal' }],
  ] as const)('%j %j', (situation, surroundings, next) => expect(stepOf(situation, surroundings)).toEqual(next))
})

describe('received', () => {
  const received = { point: 'received' } as const
  test.each([
    [{ digestPending: true, digestDueAt: NOW + 1 }, {}, { step: 'await-digest', untilAt: NOW + 1 }],
    [{ digestPending: true, digestDueAt: NOW }, {}, { step: 'seal' }],
    [{ digest: 'd' }, {}, { step: 'seal' }],
    [
      { digestPending: true, digestDueAt: NOW },
      { kind: { prepareSteps: [], requiresDigest: true } },
      { step: 'give-up-digest' },
    ],
    [
      { digestPending: true, digestDueAt: NOW },
      { kind: { prepareSteps: [], requiresDigest: true }, clockTrusted: false },
      { step: 'await-digest', untilAt: NOW },
    ],
  ] as const)('%j %j', (situation, surroundings, next) =>
    expect(stepOf({ ...received, ...situation }, surroundings)).toEqual(next),
  )
})

describe('sealed, verified', () => {
  const two = { kind: { prepareSteps: ['scan', 'thumb'], requiresDigest: false } }
  test.each([
    [{ point: 'sealed' }, {}, { step: 'verify' }],
    [{ point: 'sealed' }, { kind: null }, { step: 'leave' }],
    [{ point: 'verified' }, { kind: null }, { step: 'leave' }],
    [{ point: 'verified' }, {}, { step: 'refer' }],
    [{ point: 'verified' }, two, { step: 'prepare', name: 'scan' }],
    [{ point: 'verified', prepared: { scan: null } }, two, { step: 'prepare', name: 'thumb' }],
    [{ point: 'verified', prepared: { thumb: 1 } }, two, { step: 'prepare', name: 'scan' }],
    [{ point: 'verified', prepared: { scan: null, thumb: 1 } }, two, { step: 'refer' }],
    [
      { point: 'verified', prepared: {} },
      { kind: { prepareSteps: ['toString'], requiresDigest: false } },
      { step: 'prepare', name: 'toString' },
    ],
  ] as const)('%j %j', (situation, surroundings, next) => expect(stepOf(situation, surroundings)).toEqual(next))
})

test.each(['referenced', 'completed'] as const)('%s rests', (point) =>
  expect(stepOf({ point })).toEqual({ step: 'rest' }),
)

test.each(['cancelled', 'expired', 'rejected'] as const)(
  '%s: the bytes are removed, and then the operation rests',
  (point) => {
    expect(stepOf({ point, cleanupDue: true })).toEqual({ step: 'clean' })
    expect(stepOf({ point, cleanupDue: false })).toEqual({ step: 'rest' })
  },
)

test('time alone ends only operations that lack bytes, and none while the clock is not trusted', () => {
  for (const point of POINTS)
    for (const offset of point === 'declared' ? [0, 5, 10] : [10])
      for (const clockTrusted of [true, false]) {
        const { step } = stepOf({ point, offset, expiresAt: 0 }, { clockTrusted })
        expect(step === 'expire').toBe(point === 'declared' && offset < 10 && clockTrusted)
      }
})

test('drivable says whether a drive can do something without the client', () => {
  for (const point of POINTS)
    for (const offset of [5, 10])
      for (const uncleanHolder of [null, 'n1'])
        for (const cleanupDue of [true, false]) {
          const open = (OPEN_POINTS as readonly string[]).includes(point)
          const expected = open ? point !== 'declared' || offset === 10 || uncleanHolder !== null : cleanupDue
          expect(drivable({ ...whole, point, offset, uncleanHolder, cleanupDue })).toBe(expected)
        }
})
