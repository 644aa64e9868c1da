/** The speed is smoothed over about this time. It is steadier than the network, and quick enough to follow it. */
const SMOOTHING_MS = 6_000

export interface Progress {
  /** Accepted by the server, and durable there. Never decreases, unless the server itself has lost the operation. */
  readonly acceptedBytes: number
  readonly sizeBytes: number
  /** Null until it is known. */
  readonly bytesPerSecond: number | null
  readonly timeLeftMs: number | null
}

export interface ProgressMeter {
  /** To be called when `bytes` were accepted in `ms` of sending. */
  measured(bytes: number, ms: number): void
  read(acceptedBytes: number): Progress
  /** The server has lost everything, so the progress starts at 0 again. */
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
