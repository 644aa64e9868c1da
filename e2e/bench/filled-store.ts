import { mkdirSync, openSync, closeSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { startLandfall } from '../programs/landfall.js'

/** The time in the first key. Keys of version 7 begin with their milliseconds. */
const FIRST_KEY_MS = 0x0190_0000_0000
/** The store has one directory for every 2^16 ms. */
const DIRECTORY_MS = 65_536
/** 15 uploads a second, around the clock. */
const PER_DIRECTORY = 1_000
const EVERY_MS = Math.floor(DIRECTORY_MS / PER_DIRECTORY)

/** The findings that are planted: a few of each type, spread over the store. */
export const PLANTED = {
  missing: 3,
  'set-aside': 2,
  leftover: 4,
  'upload-remains': 0,
  unknown: 5,
  overdue: 0,
  foreign: 2,
} as const

const keyMs = (n: number): number =>
  FIRST_KEY_MS + Math.floor(n / PER_DIRECTORY) * DIRECTORY_MS + (n % PER_DIRECTORY) * EVERY_MS
const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
const keyOf = (n: number): string => `${hex(keyMs(n), 12)}70008000${hex(n, 12)}`
const pathOf = (key: string): string => join(key.slice(0, 6), key.slice(6, 8), key)

/** The place of the nth of `of` planted findings of a type. No two types share a place. */
const place = (count: number, type: number, n: number, of: number): number =>
  Math.floor(((n + 0.5) / of) * count) - (type + 1) * 7

/**
 * Fills the data directory of `landfall serve` with `count` completed uploads of empty files, their references and as
 * many blobs, and with the planted findings. The tables are those that the server itself has made.
 */
export async function fillStore(directory: string, count: number): Promise<void> {
  const server = await startLandfall(directory)
  await server.kill()
  const missing = new Set(places(count, 0, PLANTED.missing))
  const aside = new Set(places(count, 1, PLANTED['set-aside']))
  await fillLedger(join(directory, 'landfall.db'), count, places(count, 2, PLANTED.leftover))
  await fillBlobs(join(directory, 'blobs'), count, { missing, aside })
}

const places = (count: number, type: number, of: number): number[] =>
  Array.from({ length: of }, (_, n) => place(count, type, n, of))

async function fillLedger(path: string, count: number, cancelled: readonly number[]): Promise<void> {
  const client = createClient({ url: `file:${path}` })
  const ends = `CASE WHEN n IN (${cancelled.join(', ')}) THEN 'cancelled' ELSE 'completed' END`
  const key = `printf('%012x70008000%012x', ${FIRST_KEY_MS} + (n / ${PER_DIRECTORY}) * ${DIRECTORY_MS} + (n % ${PER_DIRECTORY}) * ${EVERY_MS}, n)`
  // As PUT makes them: the client chooses the id, and ids are in no order.
  const id = `printf('%08x-0000-4000-8000-%012x', (n * 2654435761) % 4294967296, n)`
  const numbers = `WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)`
  try {
    await client.execute('PRAGMA synchronous = OFF')
    await client.execute({
      sql: `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated,
          facts, blob_key, created_at, updated_at, expires_at)
        ${numbers} SELECT 'owner-' || (n % 1000), ${id}, 'file', ${ends}, 'photo.jpg', 0, 'image/jpeg', '{}', '{}',
          'file', ${key}, ${FIRST_KEY_MS} + n, ${FIRST_KEY_MS} + n, ${FIRST_KEY_MS} + n FROM numbers`,
      args: [count],
    })
    await client.execute(
      `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
        SELECT owner, id, blob_key, 0, 'image/jpeg', 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', 'server',
          created_at, 'null' FROM landfall_operations WHERE point = 'completed'`,
    )
  } finally {
    client.close()
  }
}

async function fillBlobs(
  blobs: string,
  count: number,
  { missing, aside }: { missing: ReadonlySet<number>; aside: ReadonlySet<number> },
): Promise<void> {
  const put = (name: string): void => closeSync(openSync(join(blobs, name), 'w'))
  for (let n = 0; n < count; n += 1) {
    const key = keyOf(n)
    const path = join('blobs', pathOf(key))
    if (n % PER_DIRECTORY === 0) mkdirSync(join(blobs, path, '..'), { recursive: true })
    if (!missing.has(n) && !aside.has(n)) put(path)
  }
  mkdirSync(join(blobs, 'quarantine'), { recursive: true })
  for (const n of aside) put(join('quarantine', `${keyOf(n)}.${Date.now()}`))
  // A key between two existing keys, which shares their first 20 digits.
  for (const n of places(count, 3, PLANTED.unknown))
    put(join('blobs', pathOf(`${keyOf(n).slice(0, 20)}${'f'.repeat(12)}`)))
  for (const n of places(count, 4, PLANTED.foreign))
    await writeFile(join(blobs, 'blobs', pathOf(keyOf(n)), '..', `note-${n}.txt`), 'mine')
}
