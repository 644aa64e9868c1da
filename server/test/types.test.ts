import type { JsonObject, KindsOf } from '@landfall/shared'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import * as v from 'valibot'
import { expectTypeOf, test } from 'vitest'
import { createUploads, fileBlobs, kind, reject, sqliteLedger, standardWebhook, type Uploads } from '../src/index.js'
import { openDatabase, photos, temporaryDirectory, type Tx } from './fixtures.js'

test('the client gets its types from the kinds, and the hooks get theirs from the ledger', async () => {
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

/** Never called. Only its types are checked. */
export function looksAtMetadata(): void {
  const taking = <Schema extends StandardSchemaV1>(metadata: Schema) => {
    const declared = kind({ metadata, onReference: async (_tx: Tx) => null })
    return declared as unknown as { metadata: NonNullable<(typeof declared)['~types']>['metadata'] }
  }
  const optional = taking(v.object({ albumId: v.string(), note: v.optional(v.string()) }))
  expectTypeOf(optional.metadata).toEqualTypeOf<{ albumId: string; note?: string }>()
  // @ts-expect-error -- an optional member does not open the rest
  optional.metadata = { anything: true }
  // @ts-expect-error -- and has a type
  optional.metadata = { albumId: 'a', note: 5 }
  optional.metadata = { albumId: 'a' }

  const nested = taking(
    v.object({
      tags: v.array(v.object({ name: v.string(), colour: v.optional(v.picklist(['red', 'blue']), 'red') })),
      free: v.optional(v.unknown()),
      pair: v.tuple([v.number(), v.nullable(v.string())]),
    }),
  )
  nested.metadata = { tags: [{ name: 'a' }], free: { any: [1] }, pair: [1, null] }
  // @ts-expect-error -- deep inside too
  nested.metadata = { tags: [{ name: 'a', colour: 'green' }], pair: [1, null] }

  interface Named {
    albumId: string
    page?: number | undefined
  }
  const named = taking({} as StandardSchemaV1<Named, Named>)
  named.metadata = { albumId: 'a', page: 1 }
  // @ts-expect-error -- an interface is no invitation either
  named.metadata = { anything: true }

  const variants = taking(
    v.variant('type', [
      v.object({ type: v.literal('a'), x: v.optional(v.number()) }),
      v.object({ type: v.literal('b') }),
    ]),
  )
  variants.metadata = { type: 'a' }
  // @ts-expect-error -- neither of the two
  variants.metadata = { type: 'c' }

  const date = taking(v.object({ takenAt: v.date() }))
  expectTypeOf(date.metadata).toEqualTypeOf<never>()
  const said = taking({} as StandardSchemaV1)
  expectTypeOf(said.metadata).toEqualTypeOf<JsonObject>()
}
