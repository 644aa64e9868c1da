import { setTimeout as sleep } from 'node:timers/promises'
import {
  isFinal,
  isReferenced,
  operationPath,
  type Operation,
  problemCode,
  TUS_CONTENT_TYPE,
  TUS_RESUMABLE,
} from '@landfall/shared'
import { Upload } from 'tus-js-client'
import { ownHeaders } from '../clients/own-headers.js'
import type { System } from './stage.js'

/** What the client said in the end. */
export interface Told {
  readonly success: boolean
  /** Why not: a status, or what it says itself. */
  readonly why: string | null
  /** The last part of the upload's URL. */
  readonly id: string
}

export interface Sending {
  readonly operationId: string
  readonly bytes: Buffer
  /** Sent in requests of this size; default: all in one. */
  readonly chunkBytes?: number
  /** The upload is made, and no byte of it was sent: awaited before that. */
  created(id: string): Promise<void>
}

const idOf = (url: string | null): string => url?.split('/').at(-1) ?? ''

/** tus-js-client with default settings. */
export function sendByTus(system: System, { operationId, bytes, chunkBytes, created }: Sending): Promise<Told> {
  return new Promise((resolve) => {
    const upload: Upload = new Upload(bytes, {
      endpoint: system.endpoint,
      metadata: { filename: operationId, filetype: 'application/octet-stream', operationId },
      ...(chunkBytes === undefined ? {} : { chunkSize: chunkBytes }),
      onAfterResponse: async (request, response) => {
        const isMade = request.getMethod() === 'POST' && response.getStatus() === 201
        if (isMade) await created(idOf(response.getHeader('Location') ?? null))
      },
      onSuccess: () => resolve({ success: true, why: null, id: idOf(upload.url) }),
      onError: (error) => {
        const status = 'originalResponse' in error ? error.originalResponse?.getStatus() : undefined
        resolve({ success: false, why: status === undefined ? error.message : String(status), id: idOf(upload.url) })
      },
    })
    upload.start()
  })
}

const PATIENCE_MS = 60_000

/** Our wire: the operation is asked where it stands before each request that brings bytes, and when all are there. */
export async function sendByOperation(
  system: System,
  { operationId, bytes, chunkBytes = bytes.length, created }: Sending,
): Promise<Told> {
  const base = system.endpoint.slice(0, -'/files'.length)
  let isMade = false
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await sleep(200)) {
    try {
      const headers = await ownHeaders(base)
      const answer = await fetch(base + operationPath(operationId), {
        method: 'PUT',
        headers,
        body: JSON.stringify({ file: { name: operationId, size: bytes.length, type: 'application/octet-stream' } }),
      })
      if (!answer.ok) continue
      const { recoveryPoint, offset, problem } = (await answer.json()) as Operation
      if (!isMade) await created(operationId)
      isMade = true
      if (isReferenced(recoveryPoint)) return { success: true, why: null, id: operationId }
      if (isFinal(recoveryPoint))
        return { success: false, why: (problem && problemCode(problem)) ?? recoveryPoint, id: operationId }
      if (offset === bytes.length) continue
      await fetch(`${base}/files/${operationId}`, {
        method: 'PATCH',
        headers: {
          ...headers,
          'Tus-Resumable': TUS_RESUMABLE,
          'Upload-Offset': String(offset),
          'Content-Type': TUS_CONTENT_TYPE,
        },
        body: new Uint8Array(bytes.subarray(offset, offset + chunkBytes)),
      })
    } catch {
      // The line broke: asked again.
    }
  }
  return { success: false, why: `nothing within ${PATIENCE_MS / 1000} s`, id: operationId }
}
