import { describe, expect, it } from 'vitest'
import { backOff, chunkEnd, createTurns, createWatchdog, delayMs, nextChunkBytes, retryAfterMs } from '../src/pace.js'
import { createFastClock } from './browser.js'

const MIB = 1024 * 1024

describe('delays', () => {
  it('are jittered fully below a ceiling that doubles up to 30 s', () => {
    expect(delayMs(0, null, 0)).toBe(0)
    expect(delayMs(0, null, 0.999)).toBeLessThan(500)
    expect(delayMs(3, null, 0.5)).toBe(2_000)
    expect(delayMs(1000, null, 1)).toBe(30_000)
  })
  it('are never shorter than Retry-After, and spread by at most a second', () => {
    expect(delayMs(0, 5_000, 0)).toBe(5_000)
    expect(delayMs(0, 5_000, 1)).toBe(6_000)
    expect(delayMs(9, 0, 1)).toBe(0)
    expect(delayMs(0, 86_400_000, 0)).toBe(3_600_000)
  })
  it('Retry-After is read as seconds and as a date', () => {
    const wallMs = Date.parse('2026-11-24T12:00:00Z')
    expect(retryAfterMs('120', wallMs)).toBe(120_000)
    expect(retryAfterMs('Tue, 24 Nov 2026 12:00:30 GMT', wallMs)).toBe(30_000)
    expect(retryAfterMs('Tue, 24 Nov 2026 11:00:00 GMT', wallMs)).toBe(0)
    expect(retryAfterMs('soon', wallMs)).toBeNull()
    expect(retryAfterMs(null, wallMs)).toBeNull()
  })
  it('end early when the network or the page is back, but not if Retry-After asked for them', async () => {
    const clock = { ...createFastClock(), random: () => 1 }
    const waited = async (retryAfter: number | null): Promise<number> => {
      const startMs = clock.nowMs()
      const waiting = backOff(clock, 10, retryAfter, new AbortController().signal, () => {})
      setTimeout(() => clock.wake(), 10)
      await waiting
      return clock.nowMs() - startMs
    }
    expect(await waited(null)).toBeLessThan(3_000)
    expect(await waited(5_000)).toBeGreaterThanOrEqual(5_000)
  })
})

describe('the watchdog', () => {
  const waits = (dog: ReturnType<typeof createWatchdog>, everyMs: number, fromMs = 0): number => {
    for (let nowMs = fromMs + everyMs; ; nowMs += everyMs) if (dog.stalled(nowMs)) return nowMs - fromMs
  }
  it('gives up after 30 s without upload progress', () => {
    expect(waits(createWatchdog(1000, 0, 0), 1_000)).toBe(30_000)
  })
  it('starts again with each byte that moves, not with a repeated report', () => {
    const dog = createWatchdog(1000, 0, 0)
    for (let nowMs = 1_000; nowMs <= 29_000; nowMs += 1_000) expect(dog.stalled(nowMs)).toBe(false)
    dog.progress(10)
    expect(dog.stalled(40_000)).toBe(false)
    dog.progress(10)
    expect(waits(dog, 1_000, 40_000)).toBeLessThanOrEqual(26_000)
  })
  it('waits for the answer 60 s after the whole body went out, or three times the last chunk', () => {
    const whole = (lastChunkMs: number): ReturnType<typeof createWatchdog> => {
      const dog = createWatchdog(1000, lastChunkMs, 0)
      dog.progress(1000)
      return dog
    }
    expect(waits(whole(0), 1_000)).toBe(60_000)
    expect(waits(whole(40_000), 1_000)).toBe(120_000)
  })
  it('does not count time asleep', () => {
    const dog = createWatchdog(1000, 0, 0)
    expect(dog.stalled(1_000)).toBe(false)
    // Eight hours with the lid closed.
    expect(dog.stalled(28_800_000)).toBe(false)
    expect(waits(dog, 1_000, 28_800_000)).toBeGreaterThanOrEqual(20_000)
  })
})

describe('chunks', () => {
  it('grow while they are quick, up to 8 MiB, and shrink while they are slow', () => {
    expect(nextChunkBytes(MIB / 4, 300)).toBe(MIB / 2)
    expect(nextChunkBytes(8 * MIB, 300)).toBe(8 * MIB)
    expect(nextChunkBytes(8 * MIB, 2_000)).toBe(8 * MIB)
    expect(nextChunkBytes(8 * MIB, 30_000)).toBe(4 * MIB)
    expect(nextChunkBytes(MIB / 4, 30_000)).toBe(MIB / 4)
  })
  it('a small file or rest goes as a whole, except after a fault', () => {
    expect(chunkEnd(0, MIB, MIB / 4, false)).toBe(MIB)
    expect(chunkEnd(0, MIB, MIB / 4, true)).toBe(MIB / 4)
    expect(chunkEnd(0, 9 * MIB, MIB / 4, false)).toBe(MIB / 4)
    expect(chunkEnd(9 * MIB - 10, 9 * MIB, MIB / 4, true)).toBe(9 * MIB)
  })
})

describe('turns', () => {
  it('are taken in order, and given to the next one directly', async () => {
    const turns = createTurns(1)
    const { signal } = new AbortController()
    const order: string[] = []
    const first = await turns.take(signal)
    const second = turns.take(signal).then((give) => (order.push('second'), give))
    const third = turns.take(signal).then((give) => (order.push('third'), give))
    first?.()
    first?.()
    ;(await second)?.()
    await third
    expect(order).toEqual(['second', 'third'])
  })
  it('are not given to a caller that has left the queue', async () => {
    const turns = createTurns(1)
    const leaver = new AbortController()
    const first = await turns.take(new AbortController().signal)
    const waiting = turns.take(leaver.signal)
    leaver.abort()
    expect(await waiting).toBeNull()
    first?.()
    expect(await turns.take(new AbortController().signal)).not.toBeNull()
  })
})
