import { setTimeout as sleep } from 'node:timers/promises'
import type { LimitFunction } from 'p-limit'
import { createStop, readChunks, type Stop } from '../read-chunks.js'
import { UploadError } from '../../lib/errors.js'
import type { Appended, AppendRequest, BlobRef } from '../../ports/blob-store.js'
import type { Blocks } from './blocks.js'
import type { Budget } from './budget.js'
import type { S3Calls } from './calls.js'
import { createFilling, Gone } from './filling.js'
import type { Names } from './names.js'
import { chained, type Notes, toState } from './notes.js'
import { createProgress } from './progress.js'
import type { S3Examination } from './seal.js'
import type { Tails } from './tails.js'

export interface S3AppendDeps {
  readonly calls: S3Calls
  readonly names: Names
  readonly examination: S3Examination
  readonly tails: Tails
  readonly budget: Budget
  readonly blocks: Blocks
  /**
   * The limit of parts in flight of all uploads. A slot is held only while a part is sent, never while waiting for
   * bytes.
   */
  readonly sending: LimitFunction
  readonly partBytesOf: (sizeBytes: number) => number
  readonly checkpoint: { readonly bytes: number; readonly ms: number }
}

/** How many parts of one upload may be in flight. */
const IN_FLIGHT = 4
/** How long a client that sends nothing keeps its memory. */
const IDLE_MS = 2_000
const IDLE_UNDER_PRESSURE_MS = 250
/**
 * A caller that asks a receiver to stop waits 3.5 s for it. What is in flight has this much of that time to be stored.
 */
const LET_GO_MS = 1_500
const TICK_MS = 125
const LAST_ACKNOWLEDGEMENTS = 5

/**
 * Takes bytes as parts from memory, starting where the notes end. @throws Gone if the upload does not exist (any more)
 */
export async function takeParts(
  deps: S3AppendDeps,
  blob: BlobRef,
  request: AppendRequest,
  stop: Stop,
  notes: Notes,
): Promise<Appended> {
  const { calls, names, tails, budget, checkpoint } = deps
  const { uploadId, partBytes } = notes
  const cut = new AbortController()
  const stopping = new AbortController()
  const progress = createProgress(blob, notes, request, tails)
  const filling = createFilling({ ...deps, signal: cut.signal }, blob, partBytes, progress)
  const inFlight = new Set<Promise<void>>()
  const failures: unknown[] = []
  let isLeaseLost = false
  let isExcess = false
  let received = request.offset
  let { proof } = notes
  let isWaiting = false
  let letGo: NodeJS.Timeout | null = null

  const reading = createStop()
  const end = (): void => {
    reading.ask()
    stopping.abort()
  }
  const fail = (error: unknown): void => {
    // This request cut itself off, so it is no fault.
    if (!cut.signal.aborted) failures.push(error)
    end()
  }
  stop.whenAsked(() => {
    letGo ??= setTimeout(() => cut.abort(new UploadError('storage-unavailable', 'asked to stop')), LET_GO_MS)
    end()
  })

  /** Runs everything that changes the part that is being filled, one after the other. */
  let busy: Promise<unknown> = Promise.resolve()
  const serially = <T>(work: () => Promise<T>): Promise<T> => {
    const result = busy.then(work)
    busy = result.catch(() => {})
    return result
  }
  const flush = (free: boolean): Promise<void> => serially(() => filling.flush(free))
  const acknowledge = async (final?: 'final'): Promise<boolean> => {
    try {
      return await progress.acknowledge(final)
    } catch (error) {
      isLeaseLost = true
      failures.unshift(error)
      cut.abort(error)
      end()
      throw error
    }
  }
  const consider = async (): Promise<void> => {
    if (progress.durable().offset - progress.recorded().offset >= checkpoint.bytes) await acknowledge()
  }

  /** Sends the part if it is full, while the parts before it may still be in flight. */
  const sendPart = (): Promise<void> =>
    serially(async () => {
      if (uploadId === null || filling.capacity() === 0 || filling.length() < filling.capacity()) return
      while (inFlight.size >= IN_FLIGHT) await Promise.race(inFlight)
      const whole = stopping.signal.aborted ? null : await filling.whole(stopping.signal)
      if (whole === null) return
      const part = progress.filling()
      progress.next()
      const { payload } = whole
      const provenBy = (proof = chained(proof, payload.sha256))
      let attempts = 0
      const sent = deps.sending(async () => {
        const stored = await calls.uploadPart(
          { name: names.blob(blob.key), uploadId, number: part.number, payload },
          cut.signal,
        )
        if (stored === 'gone') throw new Gone()
        ;({ attempts } = stored)
        part.done = { etag: stored.etag, proof: provenBy }
      })
      const task = sent
        // The socket of an attempt that broke off may still read the bytes.
        .finally(() => whole.release(attempts === 1))
        .then(consider)
        .catch(fail)
        .finally(() => inFlight.delete(task))
      inFlight.add(task)
    })

  let lastByteMs = performance.now()
  let unstoredSinceMs = lastByteMs
  const takeChunk = async (chunk: Uint8Array): Promise<boolean> => {
    request.onBytes?.()
    received += chunk.length
    if (received > blob.size) {
      isExcess = true
      return false
    }
    for (let rest = chunk; rest.length > 0;) {
      await sendPart()
      const bytes = rest.subarray(0, filling.capacity() - filling.length())
      if (bytes.length === 0 || !(await memory())) return false
      lastByteMs = performance.now()
      if (filling.unstoredBytes() === 0) unstoredSinceMs = lastByteMs
      rest = rest.subarray(filling.add(bytes))
    }
    await sendPart()
    return !stopping.signal.aborted
  }

  /**
   * Takes memory for the next bytes. Over the budget, an upload that waits for too long stores and gives back what it
   * holds. An upload that waits for the memory of a whole part holds little, and those before it fill their parts
   * quickly. False if it was asked to stop while it waited.
   */
  async function memory(): Promise<boolean> {
    const { bytes, isRest } = filling.wanted()
    if (bytes === 0) return true
    if (!budget.tryTake(bytes)) {
      isWaiting = true
      const granted = budget.take(bytes, stopping.signal)
      const soon = await Promise.race([granted, sleep(isRest ? IDLE_MS : IDLE_UNDER_PRESSURE_MS, null)])
      if (soon === null) await flush(true).catch(fail)
      const isGranted = await granted
      isWaiting = false
      if (!isGranted) return false
    }
    filling.grow(bytes)
    return true
  }

  let ticking: Promise<void> | null = null
  const tick = async (): Promise<void> => {
    const nowMs = performance.now()
    const isPressed = budget.underPressure()
    const isIdle = !isWaiting && filling.holds() && nowMs - lastByteMs >= (isPressed ? IDLE_UNDER_PRESSURE_MS : IDLE_MS)
    // What comes after parts in flight cannot be acknowledged before them.
    const isOld =
      !isWaiting && inFlight.size === 0 && filling.unstoredBytes() > 0 && nowMs - unstoredSinceMs >= checkpoint.ms
    if (isIdle || isOld) {
      unstoredSinceMs = nowMs
      await flush(isIdle || isPressed)
    }
    if (nowMs - acknowledgedAtMs < checkpoint.ms && !isIdle) return
    acknowledgedAtMs = nowMs
    await acknowledge()
  }
  let acknowledgedAtMs = performance.now()
  const ticker = setInterval(() => {
    if (ticking !== null || stopping.signal.aborted) return
    ticking = tick()
      .catch(fail)
      .finally(() => (ticking = null))
  }, TICK_MS)

  const allSettled = async (): Promise<void> => {
    await ticking
    await busy
    while (inFlight.size > 0) await Promise.all(inFlight)
  }
  try {
    // Send a part that was already full when its sender was stopped.
    await sendPart()
    const ended = await readChunks(request.source, reading, takeChunk)
    clearInterval(ticker)
    if (isExcess) cut.abort(new UploadError('storage-unavailable', 'the source is longer than the blob'))
    await allSettled()
    if (isExcess) {
      await progress.discard()
      const { offset, notes: kept } = progress.recorded()
      return { outcome: 'kept', offset, state: toState(kept), ended: 'excess' }
    }
    throwFirst(failures)
    if (received === blob.size && uploadId === null) {
      const put = await putWhole()
      if (put !== null) return put
    }
    // Store what was received, also when the request was cut off.
    await flush(false).catch(fail)
    throwFirst(failures)
    const isAcknowledged = await lastAcknowledgement()
    const { offset, notes: kept } = progress.durable()
    if (offset === blob.size && !isAcknowledged)
      // Only what the ledger has recorded may be completed.
      throw new UploadError('ledger-unavailable', 'the last parts could not be recorded')
    return { outcome: 'kept', offset, state: toState(kept), ended: endingOf(offset, ended) }
  } catch (error) {
    clearInterval(ticker)
    end()
    if (isLeaseLost) await progress.discard()
    // Bytes without a gap are not lost because of a fault after them.
    else if (!(error instanceof Gone))
      await allSettled()
        .then(() => progress.acknowledge())
        .catch(() => {})
    throw error
  } finally {
    clearInterval(ticker)
    if (letGo !== null) clearTimeout(letGo)
    await allSettled()
    filling.drop()
    await progress.settled()
  }

  function endingOf(offset: number, ended: 'whole' | 'broken' | 'excess' | 'stopped') {
    if (offset === blob.size) return 'whole'
    // It was cut off while it was sent. And `readChunks` reports 'excess' for every refused chunk, which here is a
    // stop.
    return offset < received || ended === 'excess' ? 'stopped' : ended
  }

  async function lastAcknowledgement(): Promise<boolean> {
    // Whole parts alone are recorded at the request's end, which saves a commit.
    if (progress.durable().offset < blob.size && progress.hasNoPieces()) return false
    for (let attempt = 0; attempt < LAST_ACKNOWLEDGEMENTS; attempt++) {
      if (await acknowledge('final')) return true
      // A partial blob is recorded at the request's end.
      if (progress.durable().offset < blob.size) return false
      await sleep(IDLE_UNDER_PRESSURE_MS)
    }
    return false
  }

  /** Stores a blob that fits in one part, with one PutObject that overwrites nothing. */
  async function putWhole(): Promise<Appended | null> {
    const whole = await serially(() => filling.whole(stopping.signal))
    if (whole === null) return null
    let attempts = 0
    const put = await deps
      .sending(() =>
        calls.put(names.blob(blob.key), whole.payload, {
          once: true,
          token: notes.token,
          isBlob: true,
          signal: cut.signal,
        }),
      )
      .then((done) => {
        // A refusal may have been answered before all of the body was read.
        if (done.outcome === 'put') ({ attempts } = done)
        return done.outcome
      })
      .finally(() => whole.release(attempts === 1))
    // Our own answer was lost, or a request that had lost the lease was faster. The object is whole in both cases.
    if (put === 'taken' && (await deps.examination.atObject(blob, notes)) !== 'whole')
      throw new UploadError('storage-unavailable', 'another object exists under the name of the blob')
    if (notes.tail.length === 0 && progress.filling().pieces.length === 0)
      return { outcome: 'kept', offset: blob.size, ended: 'whole' }
    await progress.acknowledgeWhole().catch((error: unknown) => {
      isLeaseLost = true
      throw error
    })
    return {
      outcome: 'kept',
      offset: blob.size,
      state: toState({ ...notes, tail: [] }),
      ended: 'whole',
    }
  }
}

function throwFirst(failures: readonly unknown[]): void {
  const missing = failures.find((failure) => failure instanceof Gone)
  if (failures.length > 0) throw missing ?? failures[0]
}
