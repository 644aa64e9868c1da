import { files, writeAll } from './file/durable-files.js'

export interface TakeRequest {
  readonly source: AsyncIterable<Uint8Array>
  readonly file: number
  readonly offset: number
  /** The blob's size: more is refused. */
  readonly limit: number
  readonly stop: Stop
  readonly checkpoint: { readonly bytes: number; readonly ms: number }
  /** Makes everything up to `offset` durable. */
  readonly sync: (offset: number) => Promise<void>
  readonly acknowledge: (offset: number) => Promise<boolean>
  /** Repeats a write of so many bytes while the disk refuses it for a while. */
  readonly patiently: <T>(bytes: number, write: () => Promise<T>) => Promise<T>
  readonly onBytes?: () => void
}

export interface Taken {
  /** Everything up to here is durable. */
  readonly offset: number
  readonly ended: 'whole' | 'broken' | 'excess' | 'stopped'
}

/** What may wait in memory, per request, while the disk is busy; then the source waits too. It is lost with the process, and sent again. */
const BUFFERED_BYTES = 256 * 1024

/**
 * Writes a source into a file from `offset` on. However the source ends, what was received of it is kept and synced;
 * only of a source that is longer than the blob nothing is kept beyond the last acknowledgement.
 *
 * Reading goes on while a write is in flight; checkpoints (sync, then acknowledge) go on beside both.
 *
 * @throws what the file system or `acknowledge` threw: then nothing is said of the bytes since the last checkpoint.
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

/** Hands on chunks until the source ends, breaks, is refused, or it is asked to stop. */
export async function readChunks(
  source: AsyncIterable<Uint8Array>,
  stop: Stop,
  take: (chunk: Uint8Array) => Promise<boolean>,
): Promise<Taken['ended']> {
  const iterator = source[Symbol.asyncIterator]()
  for (;;) {
    const chunk = await nextChunk(iterator, stop)
    if (chunk === 'stopped' || chunk === 'broken') return chunk
    if (chunk.done === true) return 'whole'
    if (!(await take(chunk.value))) return 'excess'
  }
}

/** Waits for a chunk, and no longer than until it is asked to stop: a client that has gone silent sends none. */
function nextChunk(
  iterator: AsyncIterator<Uint8Array>,
  stop: Stop,
): Promise<IteratorResult<Uint8Array> | 'stopped' | 'broken'> {
  return new Promise((resolve) => {
    stop.whenAsked(() => resolve('stopped'))
    if (!stop.asked()) iterator.next().then(resolve, () => resolve('broken'))
  })
}

/** A wish to end the reading, from wherever it comes. Lighter than an AbortSignal, of which every upload would need four. */
export interface Stop {
  ask(): void
  asked(): boolean
  /** One listener, the last one; called at once when it was asked already. */
  whenAsked(listener: () => void): void
}

export function createStop(): Stop {
  let asked = false
  let listener = (): void => {}
  return {
    ask() {
      asked = true
      listener()
    },
    asked: () => asked,
    whenAsked(next) {
      listener = next
      if (asked) next()
    },
  }
}

/** Writes chunks in order; those that come while a write is in flight go together into the next. */
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

/** Syncs and acknowledges every so many bytes or so often, one at a time, beside the writing. */
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
