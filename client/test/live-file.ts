/**
 * Files as Firefox and WebKit have them. They are no snapshots: a read returns what is there now, also from a slice
 * that was made before.
 */

export interface LiveFile {
  readonly file: File
  /** Overwrites bytes, as an editor would. Every later read sees them. */
  edit(at: number, bytes: Uint8Array): void
  /** Called at each read, before it sees any bytes. */
  onRead: (at: number, bytes: number) => void
  bytes(): Buffer
}

export function liveFile(content: Uint8Array<ArrayBuffer>, name = 'a.bin'): LiveFile {
  const now = Buffer.from(content)
  const slice = (start: number, end: number): Blob => {
    const part = new Blob([content.subarray(start, end)])
    return Object.assign(part, {
      slice: (from = 0, to = end - start) => slice(start + from, Math.min(end, start + to)),
      async arrayBuffer() {
        // A read takes some time, and other tasks run in between.
        await new Promise((resolve) => setImmediate(resolve))
        live.onRead(start, end - start)
        return Uint8Array.from(now.subarray(start, end)).buffer
      },
    })
  }
  const whole = new File([content], name, { type: 'application/octet-stream', lastModified: 1_700_000_000_000 })
  const live: LiveFile = {
    file: Object.assign(whole, {
      slice: (from = 0, to = now.length) => slice(from, Math.min(now.length, to)),
      arrayBuffer: () => slice(0, now.length).arrayBuffer(),
    }),
    edit: (at, bytes) => now.set(bytes, at),
    onRead: () => {},
    bytes: () => Buffer.from(now),
  }
  return live
}

/** Like WebKit around a navigation: every read of every blob is refused, the body of a request included. */
export function breakReads(): { repair: () => void; refused: () => number } {
  const { arrayBuffer } = Blob.prototype
  let refused = 0
  Blob.prototype.arrayBuffer = async () => {
    refused += 1
    throw new DOMException('The I/O read operation failed.', 'NotReadableError')
  }
  return {
    repair: () => {
      Blob.prototype.arrayBuffer = arrayBuffer
    },
    refused: () => refused,
  }
}
