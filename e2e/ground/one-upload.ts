import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { RunningProcess } from './processes.js'

const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The header that tells a `landfall serve` of these tests who the owner is. */
export const UPLOAD_OWNER_HEADER = 'X-Owner'

/**
 * Makes one upload through `landfall serve`, over the wire and without the client. It declares the upload, sends half
 * of it, restarts the server, sends the rest, restarts the server again, and reads the file back to compare it with
 * what was sent.
 *
 * @param server Its `ready[1]` is the URL of its routes.
 */
export async function uploadAcrossRestarts(server: RunningProcess): Promise<void> {
  const own: Record<string, string> = { [UPLOAD_OWNER_HEADER]: 'ann', 'Landfall-Version': '1' }
  const request = (
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: Uint8Array<ArrayBuffer> | string,
  ) =>
    fetch(`${server.ready[1] ?? ''}${path}`, {
      method,
      headers: { ...own, ...headers },
      ...(body === undefined ? {} : { body }),
    })
  const bytes = new Uint8Array(randomBytes(3_000_000))
  const half = 1_234_567
  const id = randomUUID()
  const declare = async () => {
    const facts = { file: { name: 'a.bin', size: bytes.length, type: 'application/octet-stream' } }
    const answer = await request(
      'PUT',
      `/operations/${id}`,
      { 'Content-Type': 'application/json' },
      JSON.stringify(facts),
    )
    return { status: answer.status, operation: (await answer.json()) as { offset: number; recoveryPoint: string } }
  }
  const patch = (offset: number, chunk: Uint8Array<ArrayBuffer>) =>
    request(
      'PATCH',
      `/files/${id}`,
      {
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': String(offset),
        'Content-Type': 'application/offset+octet-stream',
      },
      chunk,
    )
  own['Landfall-Owner'] = (await request('GET', '/operations?open')).headers.get('Landfall-Owner') ?? ''
  expect(await declare()).toMatchObject({ status: 201, operation: { offset: 0, recoveryPoint: 'declared' } })
  expect((await patch(0, bytes.slice(0, half))).headers.get('Upload-Offset')).toBe(String(half))
  await server.restart()
  expect(await declare()).toMatchObject({ status: 200, operation: { offset: half } })
  expect((await patch(half, bytes.slice(half))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
  await server.restart()
  expect((await declare()).operation.recoveryPoint).toMatch(/^(referenced|completed)$/)
  const stored = await request('GET', `/files/${id}`)
  expect(stored.status).toBe(200)
  expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
  expect((await request('GET', `/files/${id}`, { Range: 'bytes=-10' })).status).toBe(206)
}
