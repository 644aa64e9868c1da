import { expect, it } from 'vitest'
import { createProgressMeter } from '../src/progress.js'

it('speed and time left are unknown before a byte was accepted', () => {
  expect(createProgressMeter(1000).read(0)).toEqual({
    acceptedBytes: 0,
    sizeBytes: 1000,
    bytesPerSecond: null,
    timeLeftMs: null,
  })
})

it('speed is smoothed, so that one slow chunk changes it little', () => {
  const meter = createProgressMeter(1_000_000)
  for (let at = 0; at < 10; at += 1) meter.measured(10_000, 1_000)
  expect(meter.read(100_000).bytesPerSecond).toBe(10_000)
  meter.measured(1_000, 1_000)
  const { bytesPerSecond, timeLeftMs } = meter.read(101_000)
  expect(bytesPerSecond).toBeGreaterThan(8_000)
  expect(bytesPerSecond).toBeLessThan(10_000)
  expect(timeLeftMs).toBeCloseTo((899_000 / (bytesPerSecond ?? 1)) * 1000, -2)
})

it('what is shown never goes back, except when the server has lost the operation', () => {
  const meter = createProgressMeter(1000)
  expect(meter.read(600).acceptedBytes).toBe(600)
  expect(meter.read(400).acceptedBytes).toBe(600)
  meter.restart()
  expect(meter.read(0).acceptedBytes).toBe(0)
})

it('at the end no bytes and no time are left', () => {
  expect(createProgressMeter(1000).read(1000).timeLeftMs).toBe(0)
})
