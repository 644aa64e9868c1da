import { randomUUID } from 'node:crypto'
import { type ClientRequest, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { pseudoRandomBytes } from '../ground/files.js'
import { OWNER_HEADER } from '../programs/landfall.js'
import { patchHeaders, wireTo } from './wire.js'

const MIB = 1024 * 1024
const STALLED = 60
const SIZE_BYTES = 64 * MIB
/** Enough bytes that each of these uploads occupies memory, or a slot. */
const SENT = pseudoRandomBytes(12 * MIB, 'stalled')

async function beginPatch(origin: string, speak: 'landfall' | 'tus'): Promise<ClientRequest> {
  if (speak === 'landfall') {
    const wire = wireTo(`${origin}/uploads`, { [OWNER_HEADER]: 'bench' })
    const id = randomUUID()
    await wire.declare(id, SIZE_BYTES)
    return wire.beginPatch(id, SIZE_BYTES)
  }
  const creation = { 'Tus-Resumable': '1.0.0', 'Upload-Length': String(SIZE_BYTES) }
  const created = await fetch(`${origin}/files`, { method: 'POST', headers: creation })
  const headers = { ...patchHeaders(0), 'Content-Length': String(SIZE_BYTES) }
  const url = new URL(created.headers.get('Location') ?? '', origin)
  return request(url, { method: 'PATCH', agent: false, headers })
}

/** A client whose line goes silent in the middle of a PATCH and stays open. */
async function stall(origin: string, speak: 'landfall' | 'tus'): Promise<() => void> {
  const patch = await beginPatch(origin, speak)
  patch.on('error', () => {})
  patch.write(SENT)
  return () => void patch.destroy()
}

/** Calls `work` while 60 uploads that have begun send nothing more. */
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
