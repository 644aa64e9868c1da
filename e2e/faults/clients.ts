import { setTimeout as sleep } from 'node:timers/promises'
import { isFinal, isReferenced, type Operation, problemCode } from '@landfall/shared'
import { idOf, uploadByTus } from '../clients/tus.js'
import { wireTo } from '../clients/wire.js'
import type { System } from './stage.js'

/** What the client reported at the end. */
export interface Told {
  readonly success: boolean
  /** The reason of a failure: a status, or the client's own message. */
  readonly why: string | null
  /** The last part of the upload's URL. */
  readonly id: string
}

export interface Sending {
  readonly operationId: string
  readonly bytes: Buffer
  /** The size of each request. Default: all bytes in one request. */
  readonly chunkBytes?: number
  /** Called when the upload is made and no byte of it was sent. The client waits for it before it sends bytes. */
  created(id: string): Promise<void>
}

/** Uploads with tus-js-client and its default settings. */
export async function sendByTus(system: System, { operationId, bytes, chunkBytes, created }: Sending): Promise<Told> {
  const { upload, told } = uploadByTus(bytes, {
    endpoint: system.endpoint,
    metadata: { filename: operationId, operationId },
    ...(chunkBytes === undefined ? {} : { chunkSize: chunkBytes }),
    onAfterResponse: async (request, response) => {
      const isMade = request.getMethod() === 'POST' && response.getStatus() === 201
      if (isMade) await created(idOf({ url: response.getHeader('Location') ?? null }))
    },
  })
  const { success, status, why } = await told
  return { success, why: status === null ? why : String(status), id: idOf(upload) }
}

const PATIENCE_MS = 60_000

/**
 * Uploads with our own wire protocol. The client asks for the operation's state before each request that sends bytes,
 * and when all bytes are sent.
 */
export async function sendByOperation(
  system: System,
  { operationId: id, bytes, chunkBytes = bytes.length, created }: Sending,
): Promise<Told> {
  const wire = wireTo(system.endpoint.slice(0, -'/files'.length))
  let isMade = false
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await sleep(200)) {
    try {
      const answer = await wire.declare(id, bytes.length, id)
      if (!answer.ok) continue
      const { recoveryPoint, offset, problem } = (await answer.json()) as Operation
      if (!isMade) await created(id)
      isMade = true
      if (isReferenced(recoveryPoint)) return { success: true, why: null, id }
      if (isFinal(recoveryPoint)) return { success: false, why: (problem && problemCode(problem)) ?? recoveryPoint, id }
      if (offset < bytes.length) await wire.send(id, offset, bytes.subarray(offset, offset + chunkBytes))
    } catch {
      // The connection broke. Ask again.
    }
  }
  return { success: false, why: `nothing within ${PATIENCE_MS / 1000} s`, id }
}
