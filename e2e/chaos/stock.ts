import { setTimeout as sleep } from 'node:timers/promises'
import type { Upload } from 'tus-js-client'
import { idOf, uploadByTus } from '../clients/tus.js'
import { bytesOf, type Operation } from './operation.js'
import type { PlannedClient } from './plan.js'
import type { Served } from './system.js'

export interface StockContext {
  readonly system: Served
  readonly origin: string
  until(atMs: number): Promise<void>
  /** Fires when the time for clients is over. */
  readonly stopping: AbortSignal
}

/** By default the client gives up after nine seconds without progress. No server could keep it through these faults. */
const RETRY_DELAYS_MS = [0, 1_000, 2_000, ...Array<number>(150).fill(3_000)]
/** How long a user waits for the answer to "cancel". */
const CANCEL_MS = 20_000

/** Runs stock tus-js-client in Node with its defaults, except that it is more patient. */
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
  // The client resumes with what a page would have stored: the URL, if there was one.
  await begin(context, operation, first.upload.url).done
}

function begin({ system, origin, stopping }: StockContext, operation: Operation, uploadUrl: string | null) {
  operation.attended = true
  const note = (of: { url: string | null }): void => {
    const id = idOf(of)
    if (id !== '') operation.fileIds.add(id)
  }
  const { upload, told } = uploadByTus(bytesOf(operation.planned), {
    endpoint: origin + system.tusPath,
    uploadUrl,
    headers: { ...system.headers },
    metadata: { ...system.metadata(operation) },
    retryDelays: RETRY_DELAYS_MS,
    onUploadUrlAvailable: () => note(upload),
  })
  note({ url: uploadUrl })
  let end = (): void => {}
  const ended = new Promise<void>((resolve) => (end = resolve))
  async function over(): Promise<void> {
    const { success, why } = await told
    note(upload)
    operation.told = success ? 'success' : 'failure'
    operation.why = why
  }
  async function leave(): Promise<void> {
    operation.attended = false
    await upload.abort()
    end()
  }
  stopping.addEventListener('abort', end, { once: true })
  return { upload, done: Promise.race([over(), ended]), leave }
}

/** Sends DELETE. The answer says whether it came in time. A DELETE that is refused is tried again, in vain. */
async function cancel(upload: Upload, operation: Operation): Promise<void> {
  operation.attended = false
  const gone = upload.abort(true).then(
    () => 'cancelled' as const,
    () => null,
  )
  const hadUrl = upload.url !== null
  const outcome = await Promise.race([gone, sleep(CANCEL_MS, null)])
  // Without a URL, nothing was sent to the server.
  if (outcome === 'cancelled' && hadUrl) operation.told = 'cancelled'
}
