import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createThrottledCheck } from '../src/lib/throttled.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const forEver = new Promise<never>(() => {})

test('an answer is good for a while, and many ask at once', async () => {
  let asked = 0
  const look = createThrottledCheck(async () => (asked += 1), { everyMs: 1_000, waitMs: 500 })
  expect(await Promise.all([look(), look()])).toEqual([{ answer: 1 }, { answer: 1 }])
  vi.advanceTimersByTime(999)
  expect(await look()).toEqual({ answer: 1 })
  vi.advanceTimersByTime(1)
  expect(await look()).toEqual({ answer: 2 })
})

test('one question that is never answered is given up, and the next ones are asked as ever', async () => {
  let asked = 0
  const look = createThrottledCheck(() => ((asked += 1) === 1 ? forEver : Promise.resolve(asked)), {
    everyMs: 1_000,
    waitMs: 500,
  })
  const first = look()
  vi.advanceTimersByTime(500)
  expect(await first).toBeNull()
  vi.advanceTimersByTime(9_000)
  expect(await look()).toBeNull()
  vi.advanceTimersByTime(500)
  expect(await look()).toEqual({ answer: 2 })
  vi.advanceTimersByTime(1_000)
  expect(await look()).toEqual({ answer: 3 })
})

test('where none is answered, a few are asked and no more', async () => {
  let asked = 0
  const look = createThrottledCheck(
    () => {
      asked += 1
      return forEver
    },
    { everyMs: 1_000, waitMs: 500 },
  )
  for (let second = 0; second < 300; second += 1) {
    void look()
    vi.advanceTimersByTime(1_000)
  }
  expect(asked).toBe(4)
})
