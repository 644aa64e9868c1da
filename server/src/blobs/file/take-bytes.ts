import { readChunks, type Stop } from '../read-chunks.js'
import { files, writeAll } from './durable-files.js'

export interface TakeRequest {
  readonly source: AsyncIterable<Uint8Array>
  readonly file: number
  readonly offset: number
  /** The blob's size in bytes. More bytes are refused. */
  readonly limit: number
  readonly stop: Stop
  readonly checkpoint: { readonly bytes: number; readonly ms: number }
  /** Makes everything up to `offset` durable. */
  readonly sync: (offset: number) => Promise<void>
  readonly acknowledge: (offset: number) => Promise<boolean>
  /** Runs the write of so many bytes, and repeats it while the disk refuses it for a reason that may pass. */
  readonly patiently: <T>(bytes: number, write: () => Promise<T>) => Promise<T>
  readonly onBytes?: () => void
}

export interface Taken {
  /** Everything up to here is durable. */
  readonly offset: number
  readonly ended: 'whole' | 'broken' | 'excess' | 'stopped'
}

/**
 * How many bytes of one request may wait in memory while the disk is busy. When more wait, the source is not read.
 * These bytes are lost with the process, and the client sends them again.
 */
const BUFFERED_BYTES = 256 * 1024

/**
 * Writes a source into a file, starting at `offset`. However the source ends, the received bytes are kept and synced.
 * The only exception is a source that is longer than the blob: then nothing is kept beyond the last acknowledgement.
 *
 * Reading continues while a write is in flight. Checkpoints (sync, then acknowledge) run in parallel with both.
 *
 * @throws what the file system or `acknowledge` threw. Then the bytes since the last checkpoint may or may not be
 * stored.
 */
export async function takeBytes(request: TakeRequest): Promise<Taken> {
  const { file, limit, stop } = request
  const writer = createWriter(file, request)
  const checkpoints = createCheckpoints(request, writer.position, stop.ask)
  let received = request.offset
  let ended: Taken['ended']
  try {
    ended = await readChunks(request.source, stop, async (chunk) => {
      request.onBytes?.()
      received += chunk.length
      if (received > limit) return false
      await writer.add(chunk)
      checkpoints.consider()
      return true
    })
    await writer.drained()
  } finally {
    await checkpoints.stop()
  }
  checkpoints.throwIfFailed()
  if (ended === 'excess') {
    await files.truncate(file, checkpoints.acknowledged())
    return { offset: checkpoints.acknowledged(), ended }
  }
  if (writer.position() > checkpoints.synced()) await request.sync(writer.position())
  return { offset: writer.position(), ended }
}

/** Writes chunks in order. Chunks that arrive while a write is in flight are written together in the next write. */
function createWriter(file: number, { offset, patiently }: Pick<TakeRequest, 'offset' | 'patiently'>) {
  let waiting: Uint8Array[] = []
  let waitingBytes = 0
  let written = offset
  let writing: Promise<void> | null = null
  let failure: { error: unknown } | null = null

  const write = async (): Promise<void> => {
    try {
      while (waiting.length > 0) {
        const chunks = waiting
        const bytes = waitingBytes
        waiting = []
        waitingBytes = 0
        await patiently(bytes, () => writeAll(file, chunks, written))
        written += bytes
      }
    } catch (error) {
      failure = { error }
    }
    writing = null
  }
  const throwIfFailed = (): void => {
    if (failure !== null) throw failure.error
  }

  return {
    position: () => written,
    async add(chunk: Uint8Array): Promise<void> {
      throwIfFailed()
      waiting.push(chunk)
      waitingBytes += chunk.length
      writing ??= write()
      if (waitingBytes >= BUFFERED_BYTES) await writing
    },
    async drained(): Promise<void> {
      await writing
      throwIfFailed()
    },
  }
}

/**
 * Syncs and acknowledges after every so many bytes or so many milliseconds, one checkpoint at a time, while writing
 * continues.
 */
function createCheckpoints(request: TakeRequest, position: () => number, onFailure: () => void) {
  let synced = request.offset
  let acknowledged = request.offset
  let running: Promise<void> | null = null
  let failure: { error: unknown } | null = null

  const run = async (): Promise<void> => {
    const offset = position()
    try {
      await request.sync(offset)
      synced = offset
      if (await request.acknowledge(offset)) acknowledged = offset
    } catch (error) {
      failure = { error }
      onFailure()
    }
    running = null
  }
  const start = (): void => {
    if (running === null && failure === null && position() > acknowledged) running = run()
  }
  const timer = setInterval(start, request.checkpoint.ms)

  return {
    consider(): void {
      if (position() - synced >= request.checkpoint.bytes) start()
    },
    async stop(): Promise<void> {
      clearInterval(timer)
      await running
    },
    throwIfFailed(): void {
      if (failure !== null) throw failure.error
    },
    synced: () => synced,
    acknowledged: () => acknowledged,
  }
}
