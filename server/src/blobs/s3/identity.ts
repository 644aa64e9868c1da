import { v4 as uuidv4 } from 'uuid'
import * as v from 'valibot'
import { UploadError } from '../../lib/errors.js'
import { ELSE_DROPPED } from '../dropped.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'

const schema = v.object({ format: v.literal(1), ledger: v.string() })
const markSchema = v.object({ mark: v.pipe(v.number(), v.integer(), v.minValue(0)) })
const identityText = (ledger: string): string => JSON.stringify({ format: 1, ledger })
const bytesOfText = (text: string): Uint8Array => Buffer.from(`${text}\n`)

/** The store's own objects: whose it is, the mark, and what is written to try it. */
export interface S3Identity {
  /** @throws UploadError `storage-unavailable` where no store is found, `setup` for another ledger's. */
  open(ledger: string, store: 'new' | 'known'): Promise<void>
  /** "Absent" is believed only of a store that is there: in a bucket that was emptied or is another one nothing is. */
  expect(): Promise<void>
  readMark(): Promise<number>
  writeMark(mark: number): Promise<void>
  probe(): Promise<{ syncMs: number; freeBytes: null; totalBytes: null }>
}

export function createIdentity(calls: S3Calls, names: Names): S3Identity {
  async function read(): Promise<string | null> {
    const bytes = await calls.getBytes(names.identity)
    if (bytes === null) return null
    try {
      return v.parse(schema, JSON.parse(Buffer.from(bytes).toString())).ledger
    } catch (error) {
      throw new UploadError('setup', 'store.json in the bucket cannot be read', { cause: error })
    }
  }
  const notThere = (ledger: string | null): UploadError =>
    new UploadError(
      'storage-unavailable',
      'the bucket holds no store under this prefix, and the database knows of one: are bucket and prefix the right ones?' +
        (ledger === null
          ? ''
          : ` If its blobs are lost for good, put an object store.json there that holds ${identityText(ledger)}`),
    )

  return {
    async open(ledger, store) {
      let found = await read()
      if (found === null && store === 'new') {
        await calls.put(names.identity, payloadOf([bytesOfText(identityText(ledger))]), { once: true })
        // Another node may have been quicker, also one of another environment.
        found = await read()
      }
      if (found === null) throw notThere(ledger)
      if (found !== ledger)
        throw new UploadError(
          'setup',
          `this bucket and prefix belong to another database: give each environment a prefix of its own. ${ELSE_DROPPED}`,
        )
    },
    async expect() {
      if ((await read()) === null) throw notThere(null)
    },
    async readMark() {
      const bytes = await calls.getBytes(names.mark)
      if (bytes === null) return 0
      try {
        return v.parse(markSchema, JSON.parse(Buffer.from(bytes).toString())).mark
      } catch {
        // One that cannot be read says nothing.
        return 0
      }
    },
    async writeMark(mark) {
      await calls.put(names.mark, payloadOf([bytesOfText(JSON.stringify({ mark }))]))
    },
    async probe() {
      const name = names.probes + uuidv4()
      const bytes = bytesOfText('may be removed')
      const startMs = performance.now()
      await calls.put(name, payloadOf([bytes]))
      const syncMs = performance.now() - startMs
      const found = await calls.getBytes(name)
      await calls.delete(name)
      if (found === null || !Buffer.from(found).equals(bytes))
        throw new UploadError('storage-unavailable', 'the object store gives back other bytes than it was given')
      return { syncMs, freeBytes: null, totalBytes: null }
    },
  }
}
