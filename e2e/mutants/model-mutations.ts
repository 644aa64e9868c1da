import type { Edit } from './mutate.js'

/**
 * Mistakes put into a built copy of the server that the model (`server/test/model.test.ts`, with
 * `LANDFALL_MODEL_DIST` at the copy) must turn red.
 */
export interface ModelMutation {
  readonly name: string
  readonly edits: readonly Edit[]
  /** In the name of the test that shows it. */
  readonly where: string
}

const OPERATIONS = 'ledger/sqlite/operations.js'

export const MODEL_MUTATIONS: readonly ModelMutation[] = [
  {
    name: 'writes ignore the lease token',
    edits: [
      {
        file: OPERATIONS,
        find: 'owner = ? AND id = ? AND lease_token = ? AND lease_holder = ? AND digest IS ?`',
        put: 'owner = ? AND id = ? AND ? IS NOT NULL AND ? IS NOT NULL AND digest IS ?`',
      },
    ],
    where: 'two chunks:',
  },
  {
    name: 'neither the key nor the compare-and-set keeps a second reference away',
    edits: [
      {
        file: 'ledger/sqlite/migrations.js',
        find: /data TEXT NOT NULL,\s*PRIMARY KEY \(operation_id, owner\)/,
        put: 'data TEXT NOT NULL',
      },
      {
        file: 'ledger/sqlite/migrations.js',
        find: 'CREATE UNIQUE INDEX landfall_references_blob_key',
        put: 'CREATE INDEX landfall_references_blob_key',
      },
      {
        file: 'ledger/sqlite/migrations.js',
        find: 'CREATE UNIQUE INDEX landfall_effects_name',
        put: 'CREATE INDEX landfall_effects_name',
      },
      {
        file: OPERATIONS,
        find: 'WHERE ${FENCE} AND point IN ${OPEN} RETURNING',
        put: 'WHERE owner = ? AND id = ? AND ? IS NOT NULL AND ? IS NOT NULL AND ? IS ?5 RETURNING',
      },
    ],
    where: 'a small file:',
  },
  {
    name: 'what is too short or absent is taken for sealed',
    edits: [
      {
        file: 'sequence/steps.js',
        find: /if \(found !== 'sealed'\)\s+return rejected\(problem\('bytes-lost'\)\);/,
        put: '',
      },
    ],
    where: 'two chunks:',
  },
  {
    name: 'the bytes go before the intent is recorded',
    edits: [{ file: 'sequence/drive.js', find: 'await record({}); // the intent first, the bytes second', put: ';' }],
    where: 'another digest:',
  },
  {
    name: 'cleaned up is recorded before it is done',
    edits: [
      {
        file: 'sequence/drive.js',
        find: /await deps\.blobs\.remove\(operation\.blobKey\);[^;]*await record\((\{ cleanupDue: false[^}]*\})\);/,
        put: 'await record($1); await deps.blobs.remove(operation.blobKey);',
      },
    ],
    where: 'another digest:',
  },
  {
    name: 'a reference does not look at the digest that it was decided without',
    edits: [
      { file: OPERATIONS, find: 'AND lease_holder = ? AND digest IS ?`', put: 'AND lease_holder = ? AND ? IS NOT 0`' },
    ],
    where: 'a small file:',
  },
]
