import { createUploader, type Upload, type Uploader } from '@landfall/client'
import workerUrl from '@landfall/client/worker?url'
import type { Note, StoredRecord, SweptPage, Wanted } from '../../swept-page.js'
import { fileOf, otherFile } from './files.js'

declare const sweep: { note(note: Note): void; did(name: string): void; look(name: string): IDBOpenDBRequest }

/** What this page does with an upload, and whether the upload is over. */
interface Watched {
  readonly upload: Upload
  asked: string | null
  isOver: boolean
}

function watch(uploader: Uploader, { acknowledges, cancels, picksWrong }: Wanted): (id: string) => Watched {
  const all = new Map<string, Watched>()
  const tell = (upload: Upload, ok: boolean): void => {
    sweep.note({
      note: 'told',
      id: upload.id,
      ok,
      problem: upload.problem?.code ?? null,
      reference: upload.reference,
    })
    sweep.did('told')
  }
  const take = async (upload: Upload): Promise<void> => {
    const watched = of(upload.id)
    if (acknowledges) {
      sweep.note({ note: 'acknowledging', id: upload.id })
      await upload.acknowledge()
      sweep.note({ note: 'acknowledged', id: upload.id })
      sweep.did('acknowledged')
    }
    watched.isOver = true
    finish()
  }
  let hasFinished = false
  const finish = (): void => {
    const { recovered, uploads } = uploader.snapshot()
    if (hasFinished || !recovered) return
    if (!uploads.every(({ id }) => of(id).isOver) || ![...all.values()].every(({ isOver }) => isOver)) return
    hasFinished = true
    sweep.note({ note: 'finished' })
  }
  const of = (id: string): Watched => {
    const known = all.get(id)
    if (known !== undefined) return known
    const upload = uploader.get(id)
    if (upload === null) throw new Error('no such upload')
    const watched: Watched = { upload, asked: null, isOver: false }
    all.set(id, watched)
    void cancelled(watched)
    return watched
  }
  /** No event reports a cancellation by the user, so this waits for `settled`. */
  const cancelled = async (watched: Watched): Promise<void> => {
    const { upload } = watched
    const outcome = await upload.settled()
    if (outcome.ok || uploader.get(upload.id) !== null) return
    sweep.note({ note: 'told', id: upload.id, ok: false, problem: 'cancelled', reference: null })
    sweep.did('told')
    watched.isOver = true
    finish()
  }
  const provide = ({ upload }: Watched, isAgain: boolean, acceptedBytes: number): void => {
    const { size, name } = upload.file
    const seed = Number.parseInt(name, 10)
    upload.provide(picksWrong && !isAgain && acceptedBytes > 0 ? otherFile(size, seed) : fileOf(size, seed))
  }
  uploader.on('referenced', (upload) => {
    tell(upload, true)
    return take(upload)
  })
  uploader.on('failed', (upload) => {
    tell(upload, false)
    return take(upload)
  })
  uploader.on('warning', ({ code }) => sweep.note({ note: 'warned', code }))
  const cancelling = new Set<string>()
  uploader.subscribe(() => {
    for (const { id, activity, progress, point } of uploader.snapshot().uploads) {
      const watched = of(id)
      const why = activity.state === 'needs-file' ? activity.why : null
      if (why !== null && why !== watched.asked) {
        sweep.note({ note: 'asked', id, why })
        sweep.did(`asked ${why}`)
        provide(watched, watched.asked !== null, progress.acceptedBytes)
        watched.asked = why
      }
      if (cancels && point === 'declared' && progress.acceptedBytes > 0 && !cancelling.has(id)) {
        cancelling.add(id)
        sweep.note({ note: 'cancelling', id })
        void watched.upload.cancel().then(() => sweep.note({ note: 'promised', id }))
      }
    }
    finish()
  })
  return of
}

const request = <T>(asked: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    asked.addEventListener('success', () => resolve(asked.result))
    asked.addEventListener('error', () => reject(asked.error ?? new Error('IndexedDB')))
  })

export const visited: SweptPage = {
  async journal() {
    const names = (await indexedDB.databases()).map(({ name }) => name)
    if (!names.includes('landfall-journal')) return []
    const database = await request(sweep.look('landfall-journal'))
    try {
      if (!database.objectStoreNames.contains('operations')) return []
      const store = database.transaction('operations', 'readonly').objectStore('operations')
      const all = await request<(StoredRecord | { removedAtMs: number } | { owner: string })[]>(store.getAll())
      // The store also holds the owner of the records, and for each removed record the time of its removal.
      return all.filter((each): each is StoredRecord => 'standing' in each)
    } finally {
      database.close()
    }
  },
  async forget() {
    for (const { name } of await indexedDB.databases())
      if (name !== undefined) await request(indexedDB.deleteDatabase(name))
  },
  async begin(wanted) {
    const { copyBytes, files } = wanted
    const copy = copyBytes === null ? {} : { copy: { maxBytes: copyBytes } }
    const uploader = createUploader({ endpoint: '/uploads', scope: 'sweep', workerUrl, ...copy })
    const watched = watch(uploader, wanted)
    for (const { sizeBytes, seed } of files) {
      const { id } = uploader.add(fileOf(sizeBytes, seed))
      sweep.note({ note: 'added', id, seed })
      watched(id)
    }
    await uploader.start()
    for (const { id } of uploader.snapshot().uploads) watched(id)
  },
}
