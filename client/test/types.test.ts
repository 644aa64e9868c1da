import type { JsonObject, Reference, TypedUploads } from '@landfall/shared'
import { expect, expectTypeOf, it } from 'vitest'
import { createUploader } from '../src/index.js'

type Kinds = {
  photo: { metadata: { albumId: string }; data: { photoId: number } }
  invoice: { metadata: JsonObject; data: null }
}
const options = { endpoint: '/uploads', scope: 'alice' }
const file = new File(['x'], 'x.txt')

/** Never called. Only its types are checked. */
export function looks(): void {
  const uploader = createUploader<TypedUploads<Kinds>>(options)
  const photo = uploader.add(file, { kind: 'photo', metadata: { albumId: 'a' } })
  expectTypeOf(photo.kind).toEqualTypeOf<'photo' | null>()
  expectTypeOf(photo.metadata).toEqualTypeOf<{ albumId: string }>()
  expectTypeOf(photo.reference).toEqualTypeOf<Reference<{ photoId: number }> | null>()
  uploader.add(file, { kind: 'invoice' })
  // @ts-expect-error -- with several kinds one must be named
  uploader.add(file, { metadata: {} })
  // @ts-expect-error -- there is no such kind
  uploader.add(file, { kind: 'video' })
  // @ts-expect-error -- a photo's metadata is required
  uploader.add(file, { kind: 'photo' })
  // @ts-expect-error -- and is checked
  uploader.add(file, { kind: 'photo', metadata: { albumId: 1 } })

  uploader.on('referenced', (upload) => {
    if (upload.kind === 'photo') expectTypeOf(upload.reference.data).toEqualTypeOf<{ photoId: number }>()
    if (upload.kind === 'invoice') expectTypeOf(upload.reference.data).toEqualTypeOf<null>()
  })
  uploader.on('failed', (upload) => expectTypeOf(upload.problem.code).toEqualTypeOf<string>())
  uploader.on('unauthenticated', ({ reason }) => expectTypeOf(reason).toEqualTypeOf<'credentials' | 'other-owner'>())
  // @ts-expect-error -- there is no such event
  uploader.on('done', () => {})
  for (const snapshot of uploader.snapshot().uploads) {
    if (snapshot.kind === 'photo') expectTypeOf(snapshot.reference?.data.photoId).toEqualTypeOf<number | undefined>()
  }
  const look = (outcome: Awaited<ReturnType<typeof photo.settled>>): void => {
    if (outcome.ok) expectTypeOf(outcome.reference.data.photoId).toEqualTypeOf<number>()
    else expectTypeOf(outcome.problem.detail).toEqualTypeOf<string | undefined>()
  }
  void photo.settled().then(look)

  const single = createUploader<TypedUploads<{ photo: Kinds['photo'] }>>(options)
  expectTypeOf(single.add(file, { metadata: { albumId: 'a' } }).reference).toEqualTypeOf<Reference<{
    photoId: number
  }> | null>()
  // @ts-expect-error -- the one kind's metadata is required
  single.add(file)
  single.on('referenced', (upload) => expectTypeOf(upload.reference.data.photoId).toEqualTypeOf<number>())

  const free = createUploader<TypedUploads<{ file: { metadata: JsonObject; data: null } }>>(options)
  free.add(file)

  const untyped = createUploader(options)
  expectTypeOf(untyped.add(file).reference).toEqualTypeOf<Reference | null>()
  untyped.add(file, { kind: 'anything', metadata: { free: true } })
}

it('the types are checked by the compiler', () => {
  expect(looks).toBeTypeOf('function')
})
