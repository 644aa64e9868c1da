import { createUploader, type Upload, type Uploader } from '@landfall/client'
import workerUrl from '@landfall/client/worker?url'
import { sweptBytes } from '../../bytes.js'
import type { Swept } from '../../swept.js'
import { fileOf } from './files.js'

let made: Uploader | null = null
/** The client is made at its first use, so only a page that is driven from outside has one. */
const client = (): Uploader => (made ??= createUploader({ endpoint: '/uploads', scope: 'sweep', workerUrl }))
const found = (id: string): Upload => {
  const upload = client().get(id)
  if (upload === null) throw new Error('no such upload')
  return upload
}

/**
 * Uploads without the client, because the client would never send a digest of other bytes. It tries again until there
 * is an answer.
 */
const others = new Map<string, Promise<{ ok: boolean }>>()
const WRONG_DIGEST = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
async function insist(id: string, sizeBytes: number, seed: number): Promise<{ ok: boolean }> {
  const file = { name: `${seed}.bin`, size: sizeBytes, type: 'application/octet-stream' }
  for (;;) {
    try {
      const asked = await fetch('/uploads/operations?open')
      const own = { 'Landfall-Version': '1', 'Landfall-Owner': asked.headers.get('Landfall-Owner') ?? '' }
      const put = await fetch(`/uploads/operations/${id}`, {
        method: 'PUT',
        headers: { ...own, 'Content-Type': 'application/json' },
        body: JSON.stringify({ file, digest: WRONG_DIGEST }),
      })
      const { recoveryPoint, offset } = (await put.json()) as { recoveryPoint: string; offset: number }
      if (recoveryPoint === 'referenced' || recoveryPoint === 'completed') return { ok: true }
      if (['rejected', 'cancelled', 'expired'].includes(recoveryPoint)) return { ok: false }
      if (put.ok && offset < sizeBytes)
        await fetch(`/uploads/files/${id}`, {
          method: 'PATCH',
          headers: {
            ...own,
            'Tus-Resumable': '1.0.0',
            'Upload-Offset': String(offset),
            'Content-Type': 'application/offset+octet-stream',
          },
          body: sweptBytes(sizeBytes, seed).subarray(offset),
        })
    } catch {
      // The server was killed. Try again.
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export const driven: Swept = {
  start: () => client().start(),
  add: (sizeBytes, seed) => client().add(fileOf(sizeBytes, seed)).id,
  pickAgain(id, sizeBytes, seed) {
    const provide = (): void => {
      const upload = client().get(id)
      if (upload?.snapshot().activity.state === 'needs-file') upload.provide(fileOf(sizeBytes, seed))
    }
    client().subscribe(provide)
    provide()
  },
  addWrong(sizeBytes, seed) {
    const id = crypto.randomUUID()
    others.set(id, insist(id, sizeBytes, seed))
    return id
  },
  async settled(id) {
    const other = others.get(id)
    if (other !== undefined) return other
    const upload = found(id)
    const outcome = await upload.settled()
    await upload.acknowledge()
    return outcome
  },
  cancel: (id) => found(id).cancel(),
  async remove(id) {
    for (;;) {
      const status = await fetch(`/uploads/arrivals/${id}`, { method: 'DELETE' }).then(
        (answer) => answer.status,
        () => 0,
      )
      // 404 means that an earlier attempt removed it, and the answer was lost.
      if (status === 204 || status === 404) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  },
  accepted: (id) => found(id).snapshot().progress.acceptedBytes,
  known: () =>
    client()
      .snapshot()
      .uploads.map(({ id, point }) => ({ id, point })),
}
