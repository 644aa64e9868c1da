import type { Socket } from 'node:net'

/**
 * Takes the bytes of a socket one slice at a time, in order. While slices wait, the socket is not read. So the sender's
 * window fills up, and what was counted is close to what was sent.
 */
export interface Pump {
  /** Reads nothing more until `resume`. Slices that already wait still pass. */
  pause(): void
  resume(): void
}

interface Slices {
  /** How many bytes one slice may have. */
  sliceBytes(): number
  /** How many bytes may wait before the socket is no longer read. */
  limitBytes(): number
  take(slice: Buffer, arrivedAtMs: number): Promise<void>
  /** Called when all slices were taken and the sender has sent FIN. */
  end(): Promise<void> | void
}

export function createPump(socket: Socket, slices: Slices): Pump {
  const waiting: { bytes: Buffer; arrivedAtMs: number }[] = []
  let waitingBytes = 0
  let running = false
  let ended = false
  let paused = false

  function readOrNot(): void {
    if (paused || waitingBytes >= slices.limitBytes()) socket.pause()
    else socket.resume()
  }

  async function run(): Promise<void> {
    if (running) return
    running = true
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      while (next.bytes.length > 0) {
        const slice = next.bytes.subarray(0, slices.sliceBytes())
        next.bytes = next.bytes.subarray(slice.length)
        await slices.take(slice, next.arrivedAtMs)
        waitingBytes -= slice.length
      }
      readOrNot()
    }
    running = false
    if (ended) {
      ended = false
      await slices.end()
    }
  }

  socket.on('data', (bytes: Buffer) => {
    waiting.push({ bytes, arrivedAtMs: performance.now() })
    waitingBytes += bytes.length
    readOrNot()
    void run()
  })
  socket.on('end', () => {
    ended = true
    void run()
  })

  return {
    pause() {
      paused = true
      readOrNot()
    },
    resume() {
      paused = false
      readOrNot()
    },
  }
}

/** Resolves when the kernel has taken the bytes, or when the socket is gone and they are lost. */
export function write(socket: Socket, bytes: Buffer): Promise<void> {
  if (bytes.length === 0 || !socket.writable) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('close', done)
      resolve()
    }
    socket.once('close', done)
    socket.write(bytes, done)
  })
}
