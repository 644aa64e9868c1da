import type { KindsOf } from '@landfall/shared'
import * as v from 'valibot'
import { expectTypeOf, test } from 'vitest'
import { createUploads, fileBlobs, kind, reject, sqliteLedger, standardWebhook, type Uploads } from '../src/index.js'
import { openDatabase, photos, temporaryDirectory, type Tx } from './fixtures.js'

test('types go from the kinds to the client, and from the ledger to the hooks', async () => {
  const directory = await temporaryDirectory()
  const { client, db } = await openDatabase(`${directory.path}/app.db`)
  const base = { ledger: sqliteLedger(db), blobs: fileBlobs({ directory: directory.path }), authenticate: () => 'ann' }
  const uploads = createUploads({
    ...base,
    kinds: (declare) => ({
      photo: declare({
        metadata: v.object({ albumId: v.pipe(v.string(), v.transform(Number)) }),
        authorize: ({ metadata }) => metadata.albumId > 0,
        prepare: { scan: async ({ operation }) => operation.metadata.albumId },
        onReference: async (tx, { operation, blob }) => {
          expectTypeOf(tx).toEqualTypeOf<Tx>()
          expectTypeOf(operation.metadata.albumId).toEqualTypeOf<number>()
          await tx.insert(photos).values({ name: operation.file.name })
          return blob.size > 10 ? reject('too-big') : { photoId: 7 }
        },
        effects: {
          index: async ({ operation, reference }) => {
            expectTypeOf(operation.metadata.albumId).toEqualTypeOf<number>()
            expectTypeOf(reference.data.photoId).toEqualTypeOf<number>()
          },
          notify: standardWebhook({
            url: 'https://example.org/hook',
            secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
          }),
        },
      }),
      file: declare({ onReference: async () => null }),
    }),
  })
  type Kinds = KindsOf<typeof uploads>
  expectTypeOf<keyof Kinds>().toEqualTypeOf<'photo' | 'file'>()
  expectTypeOf<Kinds['photo']['metadata']>().toEqualTypeOf<{ albumId: string }>()
  expectTypeOf<Kinds['photo']['data']>().toEqualTypeOf<{ photoId: number }>()
  expectTypeOf<Kinds['file']['data']>().toEqualTypeOf<null>()
  expectTypeOf<Parameters<Uploads<Tx>['remove']>[0]>().toEqualTypeOf<Tx>()

  const apart = createUploads({ ...base, kinds: { note: kind({ onReference: async (_tx: Tx) => 'text' }) } })
  expectTypeOf<KindsOf<typeof apart>['note']['data']>().toEqualTypeOf<string>()

  createUploads({
    ...base,
    // @ts-expect-error -- a hook for another database's transaction
    kinds: { note: kind({ onReference: async (_tx: { begin(): void }) => null }) },
  })
  client.close()
  await directory.remove()
})
