import { join } from 'node:path'

// The code under test is the sources, or a built copy with a deliberate mistake (`LANDFALL_MODEL_DIST`).
const dist = process.env['LANDFALL_MODEL_DIST']

const load = async <T>(source: () => Promise<T>, file: string): Promise<T> =>
  dist === undefined ? source() : ((await import(/* @vite-ignore */ join(dist, file))) as T)

export const { createUploads } = await load(() => import('../../src/uploads.js'), 'uploads.js')
export const { serializedLibsql } = await load(
  () => import('../../src/ledger/sqlite/client/serialized-libsql.js'),
  'ledger/sqlite/client/serialized-libsql.js',
)
export const { sqliteLedger } = await load(() => import('../../src/ledger/sqlite/ledger.js'), 'ledger/sqlite/ledger.js')
export const { UploadError } = await load(() => import('../../src/lib/errors.js'), 'lib/errors.js')
export const { kind, reject } = await load(() => import('../../src/kinds/kind.js'), 'kinds/kind.js')
export const { wroteInThisBoot, createHolderName } = await load(
  () => import('../../src/lib/holder-name.js'),
  'lib/holder-name.js',
)
export const { rules, drivable } = await load(() => import('../../src/sequence/rules.js'), 'sequence/rules.js')
export const { NOW } = await load(() => import('../../src/ledger/sqlite/dialect.js'), 'ledger/sqlite/dialect.js')
