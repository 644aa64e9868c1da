import { createStoreIdentity, IDENTITY_NAME, type StoreIdentity } from '../identity.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'

/** The identity of a bucket with a prefix. */
export function bucketIdentity(calls: S3Calls, names: Names): StoreIdentity {
  const nameOf = (name: string): string => (name === IDENTITY_NAME ? names.identity : names.mark)
  const payload = (text: string) => payloadOf([Buffer.from(`${text}\n`)])
  return createStoreIdentity(
    {
      async read(name) {
        const bytes = await calls.getBytes(nameOf(name))
        return bytes === null ? null : Buffer.from(bytes).toString()
      },
      create: async (name, text) => void (await calls.put(nameOf(name), payload(text), { once: true })),
      replace: async (name, text) => void (await calls.put(nameOf(name), payload(text))),
    },
    {
      name: 'the bucket',
      notThere:
        'the bucket holds no store under this prefix, but the database knows of one. Are bucket and prefix the right ones?',
      putAgain: `put an object ${IDENTITY_NAME} there`,
      foreign: 'this bucket and prefix belong to another database: give each environment a prefix of its own',
    },
  )
}
