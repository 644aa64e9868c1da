import { setTimeout as sleep } from 'node:timers/promises'
import { Upload } from 'tus-js-client'
import { bytesOf, type Operation } from './operation.js'
import type { PlannedClient } from './plan.js'
import type { Served } from './system.js'

export interface StockContext {
  readonly system: Served
  readonly origin: string
  until(atMs: number): Promise<void>
  /** Fires when clients are given no more time. */
  readonly stopping: AbortSignal
}

/** The defaults give up after nine seconds without progress: no server could keep them through these faults. */
const RETRY_DELAYS_MS = [0, 1_000, 2_000, ...Array<number>(150).fill(3_000)]
/** Nobody waits for ever for an answer to "cancel". */
const CANCEL_MS = 20_000

/** Stock tus-js-client in Node with its defaults, but more patient. */
export async function runStock(
  context: StockContext,
  { fate, leavesAfterMs, awayMs }: PlannedClient,
  operation: Operation,
): Promise<void> {
  const { planned } = operation
  await context.until(planned.atMs)
  if (context.stopping.aborted) return
  operation.startedAtMs = performance.now()
  const first = begin(context, operation, null)
  if (planned.cancelAfterMs !== null && fate === 'stays') {
    await Promise.race([first.done, sleep(planned.cancelAfterMs)])
    if (operation.told === null) await cancel(first.upload, operation)
    return
  }
  if (fate === 'stays') return first.done
  await Promise.race([first.done, sleep(leavesAfterMs)])
  if (operation.told !== null) return
  await first.leave()
  if (fate === 'vanishes') return
  await sleep(awayMs)
  // What a page would have kept for it: the URL, where it had one.
  await begin(context, operation, first.upload.url).done
}

function begin({ system, origin, stopping }: StockContext, operation: Operation, uploadUrl: string | null) {
  operation.attended = true
  let told = (): void => {}
  const done = new Promise<void>((resolve) => (told = resolve))
  const note = (url: string | null): void => {
    const last = url?.split('/').at(-1)
    if (last !== undefined && last !== '') operation.fileIds.add(last)
  }
  const upload = new Upload(bytesOf(operation.planned), {
    endpoint: origin + system.tusPath,
    uploadUrl,
    headers: { ...system.headers },
    metadata: { ...system.metadata(operation) },
    retryDelays: RETRY_DELAYS_MS,
    onUploadUrlAvailable: () => note(upload.url),
    onSuccess() {
      note(upload.url)
      operation.told = 'success'
      told()
    },
    onError(error) {
      operation.told = 'failure'
      operation.why = error.message
      told()
    },
  })
  note(uploadUrl)
  upload.start()
  async function leave(): Promise<void> {
    operation.attended = false
    await upload.abort()
    told()
  }
  stopping.addEventListener('abort', () => told(), { once: true })
  return { upload, done, leave }
}

/** DELETE; whether it came in time, its answer says. One that is refused is tried again, in vain. */
async function cancel(upload: Upload, operation: Operation): Promise<void> {
  operation.attended = false
  const gone = upload.abort(true).then(
    () => 'cancelled' as const,
    () => null,
  )
  const hadUrl = upload.url !== null
  const outcome = await Promise.race([gone, sleep(CANCEL_MS, null)])
  // Without a URL nothing was asked of the server.
  if (outcome === 'cancelled' && hadUrl) operation.told = 'cancelled'
}
