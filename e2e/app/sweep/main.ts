/** A page without anything to look at: the real client, driven from outside by `window.swept`. */
import { createUploader, type Upload } from '@landfall/client'
import { sweptBytes } from '../../src/sweep/bytes.js'
import type { Swept } from '../../src/sweep/swept.js'

const uploader = createUploader({ endpoint: '/uploads', scope: 'sweep' })
const found = (id: string): Upload => {
  const upload = uploader.get(id)
  if (upload === null) throw new Error('no such upload')
  return upload
}

const swept: Swept = {
  start: () => uploader.start(),
  add(sizeBytes, seed) {
    const file = new File([sweptBytes(sizeBytes, seed)], `${seed}.bin`, { type: 'application/octet-stream' })
    return uploader.add(file).id
  },
  async settled(id) {
    const upload = found(id)
    const outcome = await upload.settled()
    await upload.acknowledge()
    return outcome
  },
  cancel: (id) => found(id).cancel(),
  accepted: (id) => found(id).snapshot().progress.acceptedBytes,
  known: () => uploader.snapshot().uploads.map(({ id, point }) => ({ id, point })),
}
Object.assign(globalThis, { swept })
