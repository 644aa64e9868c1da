/** Speed is smoothed over about this long: steadier than the network, quick enough to follow it. */
const SMOOTHING_MS = 6_000

export interface Progress {
  /** Accepted by the server: durable there. Never goes back, unless the server itself has lost the operation. */
  readonly acceptedBytes: number
  readonly sizeBytes: number
  /** Null until known. */
  readonly bytesPerSecond: number | null
  readonly timeLeftMs: number | null
}

export interface ProgressMeter {
  /** `bytes` were accepted in `ms` of sending. */
  measured(bytes: number, ms: number): void
  read(acceptedBytes: number): Progress
  /** The server has lost everything: what is shown honestly starts again. */
  restart(): void
}

export function createProgressMeter(sizeBytes: number): ProgressMeter {
  let bytesPerMs: number | null = null
  let shownBytes = 0
  return {
    measured(bytes, ms) {
      if (ms <= 0 || bytes < 0) return
      const weight = bytesPerMs === null ? 1 : 1 - Math.exp(-ms / SMOOTHING_MS)
      bytesPerMs = (bytesPerMs ?? 0) * (1 - weight) + (bytes / ms) * weight
    },
    read(acceptedBytes) {
      shownBytes = Math.max(shownBytes, acceptedBytes)
      const leftBytes = sizeBytes - shownBytes
      return {
        acceptedBytes: shownBytes,
        sizeBytes,
        bytesPerSecond: bytesPerMs === null ? null : Math.round(bytesPerMs * 1000),
        timeLeftMs: leftBytes === 0 ? 0 : bytesPerMs ? Math.round(leftBytes / bytesPerMs) : null,
      }
    },
    restart() {
      shownBytes = 0
    },
  }
}
