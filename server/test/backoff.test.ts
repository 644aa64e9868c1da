/** The upper bound of the random pause after a failed hook. */
import { expect, test } from 'vitest'
import { pauseBoundMs } from '../src/sequence/drive.js'
import { UploadError } from '../src/lib/errors.js'

const backoff = { firstMs: 500, mostMs: 300_000 }
const bounds = (error: unknown): number[] =>
  [0, 1, 2, 3, 5, 6, 9, 10, 1_000].map((failed) => pauseBoundMs(backoff, failed, error))

test('the bound doubles with each failure, up to the maximum', () => {
  expect(bounds(new Error('down'))).toEqual([500, 1_000, 2_000, 4_000, 16_000, 32_000, 256_000, 300_000, 300_000])
})

test('a hook that blocked the writer is tried again later at first, and then like any other', () => {
  const held = new UploadError('writer-held', 'kept the writer')
  expect(bounds(held)).toEqual([5_000, 10_000, 20_000, 20_000, 20_000, 32_000, 256_000, 300_000, 300_000])
  expect(pauseBoundMs({ firstMs: 10, mostMs: 40 }, 3, held)).toBe(40)
})
