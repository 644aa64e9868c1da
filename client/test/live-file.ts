/** Files as Firefox and WebKit have them: no snapshots. What is read is what is there now, also of a slice made before. */

export interface LiveFile {
  readonly file: File
  /** Writes over bytes, as an editor would; whoever reads from now on sees them. */
  edit(at: number, bytes: Uint8Array): void
  /** Called with each read, before it sees anything. */
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
        // A read takes its time, and others get their turn.
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
