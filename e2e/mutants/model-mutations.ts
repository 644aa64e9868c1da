import type { Edit } from './mutate.js'

/**
 * Mistakes in a built copy of the server that the model must find (`server/test/model.test.ts`, with
 * `LANDFALL_MODEL_DIST` set to the copy).
 */
export interface ModelMutation {
  readonly name: string
  readonly edits: readonly Edit[]
  /** A part of the name of the test that shows the mistake. */
  readonly where: string
}

const FENCE = 'ledger/statements/leases.js'

export const MODEL_MUTATIONS: readonly ModelMutation[] = [
  {
    name: 'writes ignore the lease token',
    edits: [
      {
        file: FENCE,
        find: 'id = :id AND lease_token = :lease_token AND lease_holder = :lease_holder AND digest',
        put: 'id = :id AND digest',
      },
    ],
    where: 'two chunks:',
  },
  {
    name: 'neither the key nor the compare-and-set prevents a second reference',
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
        file: 'ledger/statements/references.js',
        find: 'WHERE ${FENCE} AND point IN ${OPEN} RETURNING',
        put: 'WHERE owner = :owner AND id = :id RETURNING',
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
    name: 'the bytes are removed before the intent is recorded',
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
    name: 'a reference ignores the digest that it was decided without',
    edits: [{ file: FENCE, find: ' AND digest IS NOT DISTINCT FROM :known_digest`', put: '`' }],
    where: 'a small file:',
  },
]
