import { type ClientRequest, request } from 'node:http'
import {
  type Operation,
  operationPath,
  OPERATIONS,
  OWNER_TAG_HEADER,
  TUS_CONTENT_TYPE,
  TUS_RESUMABLE,
  VERSION,
  VERSION_HEADER,
} from '@landfall/shared'

type Headers = Record<string, string>

const known = new Map<string, string>()

/**
 * The headers that Landfall's own client sends with every request: these credentials, the version, and the tag of their
 * owner. The tag is requested from the server first.
 *
 * @param mount The URL at which the routes are mounted.
 * @throws when the server does not say who owns the uploads.
 */
export async function ownHeaders(mount: string, credentials: Readonly<Headers> = {}): Promise<Headers> {
  const key = JSON.stringify([mount, credentials])
  const tag = known.get(key) ?? (await askTag(mount, credentials))
  known.set(key, tag)
  return { ...credentials, [VERSION_HEADER]: VERSION, [OWNER_TAG_HEADER]: tag }
}

async function askTag(mount: string, credentials: Readonly<Headers>): Promise<string> {
  const answer = await fetch(`${mount}${OPERATIONS}?open`, { headers: credentials })
  const text = await answer.text()
  const tag = answer.headers.get(OWNER_TAG_HEADER)
  if (tag === null) throw new Error(`GET ?open was answered ${answer.status} without the owner's tag: ${text}`)
  return tag
}

/** @see tus 1.0.0, "PATCH" */
export const patchHeaders = (offset: number): Headers => ({
  'Tus-Resumable': TUS_RESUMABLE,
  'Upload-Offset': String(offset),
  'Content-Type': TUS_CONTENT_TYPE,
})

/** Landfall's wire protocol, one request at a time, as its own client speaks it. */
export interface Wire {
  /** Sends the operation's PUT. */
  declare(id: string, sizeBytes: number, name?: string): Promise<Response>
  /** Sends a PATCH with these bytes. */
  send(id: string, offset: number, bytes: Uint8Array): Promise<Response>
  /** Begins a PATCH at offset 0 on a new connection. The caller writes and ends its body. */
  beginPatch(id: string, sizeBytes: number): Promise<ClientRequest>
  /** Sends the operation's GET. `waitS` is how many seconds the server may wait for a change. */
  ask(id: string, waitS?: number): Promise<Operation>
}

/** @param mount The URL at which the routes are mounted. */
export function wireTo(mount: string, credentials: Readonly<Headers> = {}): Wire {
  const own = (): Promise<Headers> => ownHeaders(mount, credentials)
  return {
    async declare(id, sizeBytes, name = 'file.bin') {
      return fetch(mount + operationPath(id), {
        method: 'PUT',
        headers: { ...(await own()), 'Content-Type': 'application/json' },
        body: JSON.stringify({ file: { name, size: sizeBytes, type: 'application/octet-stream' } }),
      })
    },
    async send(id, offset, bytes) {
      const headers = { ...(await own()), ...patchHeaders(offset) }
      return fetch(`${mount}/files/${id}`, { method: 'PATCH', headers, body: new Uint8Array(bytes) })
    },
    async beginPatch(id, sizeBytes) {
      const headers = { ...(await own()), ...patchHeaders(0), 'Content-Length': String(sizeBytes) }
      return request(`${mount}/files/${id}`, { method: 'PATCH', agent: false, headers })
    },
    async ask(id, waitS) {
      const query = waitS === undefined ? '' : `?wait=${waitS}`
      const answer = await fetch(mount + operationPath(id) + query, { headers: await own() })
      return (await expectStatus(answer, 200)).json() as Promise<Operation>
    },
  }
}

/** @throws when the answer has none of the wanted statuses. The message contains the body. */
export async function expectStatus(answer: Response, ...wanted: readonly number[]): Promise<Response> {
  if (!wanted.includes(answer.status)) throw new Error(`the answer was ${answer.status}: ${await answer.text()}`)
  return answer
}
