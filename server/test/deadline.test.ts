import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { deadline, endsWithin, grantedWithin } from '../src/lib/deadline.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const never = <T>(): Promise<T> => new Promise<T>(() => {})
const after = <T>(ms: number, value: T): Promise<T> => new Promise((resolve) => setTimeout(() => resolve(value), ms))

describe('deadline', () => {
  test('returns the result of the work, and leaves no timer behind', async () => {
    const working = deadline(() => after(50, 'done'), 100)
    await vi.advanceTimersByTimeAsync(50)
    expect(await working).toBe('done')
    expect(vi.getTimerCount()).toBe(0)
    expect(await deadline(() => 'at once', 100)).toBe('at once')
    await expect(deadline(() => Promise.reject(new Error('its own')), 100)).rejects.toThrow('its own')
    await expect(
      deadline(() => {
        throw new Error('at once')
      }, 100),
    ).rejects.toThrow('at once')
    expect(vi.getTimerCount()).toBe(0)
  })

  test('gives up work that ignores its signal, and aborts the signal of the work', async () => {
    const told: unknown[] = []
    const why = new Error('too late')
    const working = deadline(
      ({ signal }) => {
        signal.addEventListener('abort', () => told.push(signal.reason))
        return never()
      },
      100,
      undefined,
      () => why,
    )
    const rejected = expect(working).rejects.toBe(why)
    await vi.advanceTimersByTimeAsync(100)
    await rejected
    expect(told).toEqual([why])
  })

  test("ends with the caller's signal, and does not begin the work if that signal has already fired", async () => {
    const outside = new AbortController()
    const working = deadline(never, 100, outside.signal)
    const rejected = expect(working).rejects.toThrow('stopped')
    outside.abort(new Error('stopped'))
    await rejected
    let began = false
    await expect(deadline(() => void (began = true), 100, outside.signal)).rejects.toThrow('stopped')
    expect(began).toBe(false)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('begins again as often as the work asks for it, also with another time', async () => {
    const working = deadline(async ({ again }) => {
      for (let chunk = 0; chunk < 5; chunk += 1) {
        await after(80, null)
        again()
      }
      again(1_000)
      return after(900, 'whole')
    }, 100)
    await vi.advanceTimersByTimeAsync(5 * 80 + 900)
    expect(await working).toBe('whole')
  })

  test('a signal that is first used after the deadline has already fired', async () => {
    let late: () => AbortSignal = () => AbortSignal.abort()
    const working = deadline((limit) => {
      late = () => limit.signal
      return never()
    }, 100)
    const rejected = expect(working).rejects.toThrow('it took too long')
    await vi.advanceTimersByTimeAsync(100)
    await rejected
    expect(late().aborted).toBe(true)
  })

  test('work that fails after it was given up causes no unhandled rejection', async () => {
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    const working = deadline(() => after(200, null).then(() => Promise.reject(new Error('late'))), 100)
    const rejected = expect(working).rejects.toThrow('it took too long')
    await vi.advanceTimersByTimeAsync(300)
    await rejected
    vi.useRealTimers()
    await new Promise((resolve) => setTimeout(resolve, 10))
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
  })
})

test('endsWithin says whether work has ended, also if it failed', async () => {
  expect(await endsWithin(Promise.reject(new Error('badly')), 10)).toBe(true)
  const working = endsWithin(never(), 10)
  await vi.advanceTimersByTimeAsync(10)
  expect(await working).toBe(false)
})

test('a grant that comes too late is given back once', async () => {
  const back: string[] = []
  const late = (): Error => new Error('nothing in time')
  const granted = grantedWithin(after(50, 'a'), 100, { late, giveBack: (one) => back.push(one) })
  await vi.advanceTimersByTimeAsync(50)
  expect(await granted).toBe('a')
  const missed = expect(
    grantedWithin(after(150, 'b'), 100, { late, giveBack: (one) => back.push(one) }),
  ).rejects.toThrow('nothing in time')
  await vi.advanceTimersByTimeAsync(200)
  await missed
  expect(back).toEqual(['b'])
})
