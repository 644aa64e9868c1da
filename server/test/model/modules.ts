import { join } from 'node:path'

// The code under test: the sources, or a built copy (`LANDFALL_MODEL_DIST`) into which a mistake was put.
const dist = process.env['LANDFALL_MODEL_DIST']

const load = async <T>(source: () => Promise<T>, file: string): Promise<T> =>
  dist === undefined ? source() : ((await import(/* @vite-ignore */ join(dist, file))) as T)

export const { createUploads } = await load(() => import('../../src/uploads.js'), 'uploads.js')
export const { serializedLibsql } = await load(
  () => import('../../src/ledger/serialized-libsql.js'),
  'ledger/serialized-libsql.js',
)
export const { sqliteLedger } = await load(() => import('../../src/ledger/sqlite.js'), 'ledger/sqlite.js')
export const { UploadError } = await load(() => import('../../src/errors.js'), 'errors.js')
export const { kind, reject } = await load(() => import('../../src/kinds.js'), 'kinds.js')
export const { wroteInThisBoot, createHolderName } = await load(() => import('../../src/boot.js'), 'boot.js')
export const { rules, drivable } = await load(() => import('../../src/rules.js'), 'rules.js')
export const { NOW } = await load(() => import('../../src/ledger/statements.js'), 'ledger/statements.js')
