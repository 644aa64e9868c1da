import { randomUUID } from 'node:crypto'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { operationPath, TUS_CONTENT_TYPE, TUS_RESUMABLE } from '@landfall/shared'
import { pseudoRandomBytes } from '../ground/files.js'
import { OWNER_HEADER } from '../ground/landfall.js'
import { ownHeaders } from './own-headers.js'

const MIB = 1024 * 1024
const STALLED = 60
const SIZE_BYTES = 64 * MIB
/** Enough for each of them to hold memory, or a slot. */
const SENT = pseudoRandomBytes(12 * MIB, 'stalled')
const TUS = { 'Tus-Resumable': TUS_RESUMABLE }
const own = (origin: string) => ownHeaders(`${origin}/uploads`, { [OWNER_HEADER]: 'bench' })

async function createUpload(origin: string, speak: 'landfall' | 'tus'): Promise<string> {
  if (speak === 'tus') {
    const response = await fetch(`${origin}/files`, {
      method: 'POST',
      headers: { ...TUS, 'Upload-Length': String(SIZE_BYTES) },
    })
    return new URL(response.headers.get('Location') ?? '', origin).href
  }
  const response = await fetch(`${origin}/uploads${operationPath(randomUUID())}`, {
    method: 'PUT',
    headers: { ...(await own(origin)), 'Content-Type': 'application/json' },
    body: JSON.stringify({ file: { name: 'stalled.bin', size: SIZE_BYTES, type: 'application/octet-stream' } }),
  })
  const { uploadUrl } = (await response.json()) as { uploadUrl: string }
  return new URL(uploadUrl, origin).href
}

/** A client whose line goes silent in the middle of a PATCH, and stays open. */
async function stall(origin: string, speak: 'landfall' | 'tus'): Promise<() => void> {
  const url = await createUpload(origin, speak)
  const headers = speak === 'tus' ? {} : await own(origin)
  const patch = request(url, {
    method: 'PATCH',
    agent: false,
    headers: {
      ...TUS,
      ...headers,
      'Upload-Offset': '0',
      'Content-Type': TUS_CONTENT_TYPE,
      'Content-Length': String(SIZE_BYTES),
    },
  })
  patch.on('error', () => {})
  patch.write(SENT)
  return () => void patch.destroy()
}

/** `work` beside 60 uploads that have begun and send nothing more. */
export async function besideStalled<T>(origin: string, speak: 'landfall' | 'tus', work: () => Promise<T>): Promise<T> {
  const ends: (() => void)[] = []
  try {
    for (let n = 0; n < STALLED; n += 1) ends.push(await stall(origin, speak))
    await sleep(5_000)
    return await work()
  } finally {
    for (const end of ends) end()
  }
}
