import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault } from '../ground/proxy.js'
import type { Disturbance } from './course.js'
import type { CallOf } from './line.js'

const MIB = 1024 * 1024

export interface FaultCase extends Disturbance {
  readonly name: string
  /**
   * How Landfall ends. It cannot bring back parts that were deleted from outside, and tells the user so. Default:
   * success.
   */
  readonly ends?: 'success' | 'bytes-lost'
  /** The fault must meet at least so many of Landfall's calls. Default 1. */
  readonly leastStruck?: number
}

const answer = (status: number, code: string): Fault => ({
  kind: 'answer',
  status,
  headers: { 'Content-Type': 'application/xml' },
  body: `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${code}</Message></Error>\n`,
})
const ERROR_500 = answer(500, 'InternalError')
const SLOW_DOWN = answer(503, 'SlowDown')
const LOST: Fault = { kind: 'swallow-answer' }

/** More often than one request of Landfall's repeats a call, so this is an outage and not a short error. */
const OUTAGE_TIMES = 6
const OUTAGE_MS = 2_500
/** Requests that end in the middle of a part, so that there are tails. */
const CHUNKS = { chunkBytes: 3.5 * MIB }

/** `times` says how many of the first such calls are struck. */
const strikes =
  (fault: Fault, which: CallOf, times = 1): FaultCase['strike'] =>
  ({ line }) =>
    void line.arm(fault, which, times)

const outage =
  (fault: Fault, which: CallOf | 'all'): FaultCase['strike'] =>
  async ({ line }) => {
    const armed = line.arm(fault, which, Infinity)
    await line.struck(armed, 'answered')
    await sleep(OUTAGE_MS)
    armed.release()
  }

export const CASES: readonly FaultCase[] = [
  { name: 'nothing', leastStruck: 0, strike: () => {} },
  { name: 'nothing; in requests of 3.5 MiB', ...CHUNKS, leastStruck: 0, strike: () => {} },
  { name: '500 to one UploadPart', strike: strikes(ERROR_500, { call: 'part', part: 2 }) },
  {
    name: '500 to the first six UploadParts of part 1, later parts pass',
    sizeBytes: 15 * MIB,
    leastStruck: OUTAGE_TIMES,
    strike: strikes(ERROR_500, { call: 'part', part: 1 }, OUTAGE_TIMES),
  },
  {
    name: '500 to the first six UploadParts of part 2; in requests of 3.5 MiB',
    ...CHUNKS,
    leastStruck: OUTAGE_TIMES,
    strike: strikes(ERROR_500, { call: 'part', part: 2 }, OUTAGE_TIMES),
  },
  { name: '503 SlowDown to everything for 2.5 s', strike: outage(SLOW_DOWN, 'all') },
  {
    name: '503 SlowDown to the first six writes of a tail',
    ...CHUNKS,
    leastStruck: OUTAGE_TIMES,
    strike: strikes(SLOW_DOWN, { call: 'tail' }, OUTAGE_TIMES),
  },
  { name: '500 to everything that reads for 2.5 s', ...CHUNKS, strike: outage(ERROR_500, { call: 'read' }) },
  {
    name: 'UploadPart hangs in its middle (time limit 3 s)',
    strike: strikes({ kind: 'black-hole', afterBodyBytes: MIB }, { call: 'part', part: 2 }),
  },
  {
    name: 'UploadPart is reset in its middle',
    strike: strikes({ kind: 'reset', afterBodyBytes: MIB }, { call: 'part', part: 1 }),
  },
  { name: 'reset after the effect: CreateMultipartUpload', strike: strikes(LOST, { call: 'create' }) },
  { name: 'reset after the effect: UploadPart', strike: strikes(LOST, { call: 'part', part: 1 }) },
  { name: 'reset after the effect: the write of a tail', ...CHUNKS, strike: strikes(LOST, { call: 'tail' }) },
  { name: 'reset after the effect: CompleteMultipartUpload', strike: strikes(LOST, { call: 'complete' }) },
  {
    name: 'CompleteMultipartUpload takes effect and is never answered',
    strike: strikes({ kind: 'swallow-answer', ending: 'black-hole' }, { call: 'complete' }),
  },
  { name: '500 to CompleteMultipartUpload for 2.5 s', strike: outage(ERROR_500, { call: 'complete' }) },
  {
    name: '200 with an error in its body to one CompleteMultipartUpload',
    strike: strikes(answer(200, 'InternalError'), { call: 'complete' }),
  },
  {
    name: 'a small file: reset after the effect of what stores it',
    sizeBytes: MIB,
    strike({ line }) {
      line.arm(LOST, { call: 'whole' })
      line.arm(LOST, { call: 'part' })
    },
  },
  {
    name: 'NoSuchUpload: aborted from outside after the first part',
    ...CHUNKS,
    ends: 'bytes-lost',
    leastStruck: 0,
    async strike({ line }) {
      await line.answered({ call: 'part', part: 1 })
      await line.abortFromOutside()
    },
  },
  {
    name: 'NoSuchUpload: aborted from outside right before its completion',
    ends: 'bytes-lost',
    async strike({ line }) {
      await line.struck(line.arm({ kind: 'delay', ms: 1_500 }, { call: 'complete' }))
      await line.abortFromOutside()
    },
  },
]
