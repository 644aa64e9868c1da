import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

export type Direction = 'up' | 'down'

/** Bytes a second in each direction. Null means no limit. */
export interface Rate {
  readonly upBytesPerSecond: number | null
  readonly downBytesPerSecond: number | null
}

/** The emulated line that all connections of one proxy share: its rate, its delay, and whether it is cut. */
export interface Link {
  setRate(rate: Rate): void
  /** Sets the delay of each byte in each direction, in milliseconds. */
  setLatency(latencyMs: number): void
  latencyMs(): number
  cut(): void
  heal(): void
  /** How many bytes may pass in one slice, so that the rate is smooth. */
  sliceBytes(direction: Direction): number
  /** Resolves when these bytes have crossed the line. While the line is cut, it does not resolve. */
  cross(direction: Direction, bytes: number, arrivedAtMs: number): Promise<void>
}

/** A slice lasts a twentieth of a second, so a changed rate takes effect at once. */
const SLICES_PER_SECOND = 20
const MIN_SLICE_BYTES = 512
const MAX_SLICE_BYTES = 65_536
/** How much time a timer that fired late may catch up. Without it, high rates are not reached. */
const BURST_MS = 10

export function createLink(): Link {
  const directions = { up: createBucket(), down: createBucket() }
  let latencyMs = 0
  let whole = true
  const crossings = new EventEmitter().setMaxListeners(0)

  return {
    setRate({ upBytesPerSecond, downBytesPerSecond }) {
      directions.up.setRate(upBytesPerSecond)
      directions.down.setRate(downBytesPerSecond)
    },
    setLatency(ms) {
      latencyMs = ms
    },
    latencyMs: () => latencyMs,
    cut() {
      whole = false
    },
    heal() {
      whole = true
      crossings.emit('healed')
    },
    sliceBytes: (direction) => directions[direction].sliceBytes(),
    async cross(direction, bytes, arrivedAtMs) {
      await directions[direction].take(bytes)
      const lateMs = arrivedAtMs + latencyMs - performance.now()
      if (lateMs > 1) await sleep(lateMs)
      while (!whole) await once(crossings, 'healed') // oxlint-disable-line no-unmodified-loop-condition -- cut() and heal() do
    },
  }
}

/**
 * A token bucket in the form of a time: the time at which the line is free again. Callers are served in the order in
 * which they came.
 */
function createBucket() {
  let bytesPerSecond: number | null = null
  let freeAtMs = 0

  return {
    setRate(rate: number | null) {
      bytesPerSecond = rate
      freeAtMs = 0
    },
    sliceBytes(): number {
      if (bytesPerSecond === null) return MAX_SLICE_BYTES
      return Math.min(MAX_SLICE_BYTES, Math.max(MIN_SLICE_BYTES, Math.floor(bytesPerSecond / SLICES_PER_SECOND)))
    },
    async take(bytes: number): Promise<void> {
      if (bytesPerSecond === null) return
      const nowMs = performance.now()
      freeAtMs = Math.max(nowMs - BURST_MS, freeAtMs) + (bytes / bytesPerSecond) * 1000
      const waitMs = freeAtMs - nowMs
      if (waitMs > 1) await sleep(waitMs)
    },
  }
}
