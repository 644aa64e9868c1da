import type { Run } from '../sweep/runs.js'
import type { Edit } from './mutate.js'

/** A mistake in the server that the sweep of the server must find. */
export interface Mutation {
  readonly name: string
  readonly edits: readonly Edit[]
  /** The runs that must show the mistake. Default: any run. */
  readonly where?: (run: Run) => boolean
}

const powerIsLost = ({ variant }: Run): boolean => variant.power !== undefined || variant.powerAgain !== undefined
const of =
  (scenario: string) =>
  (run: Run): boolean =>
    run.scenario.name.includes(scenario)

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'files are not synced',
    edits: [
      {
        file: 'blobs/file/durable-files.js',
        find: /dataSync: promisify\(fdatasync\)/,
        put: 'dataSync: async () => {}',
      },
    ],
    where: powerIsLost,
  },
  {
    name: 'small files are written without O_DSYNC',
    edits: [{ file: 'blobs/file/file-blobs.js', find: 'synced ? O_DSYNC : 0', put: '0' }],
    where: powerIsLost,
  },
  {
    name: 'names are not synced',
    edits: [
      {
        file: 'blobs/file/durable-files.js',
        find: 'const start = async (directory) => files.sync(await fileOf(directory));',
        put: 'const start = async (directory) => void (await fileOf(directory));',
      },
    ],
    where: powerIsLost,
  },
  {
    name: 'names of directories are not synced',
    edits: [
      {
        file: 'blobs/file/durable-files.js',
        find: 'await Promise.all([sync(dirname(path)), nameDirectory(dirname(path))]);',
        put: 'await sync(dirname(path));',
      },
    ],
    where: powerIsLost,
  },
  {
    name: 'a name that is gone already is not synced',
    edits: [
      {
        file: 'blobs/file/file-blobs.js',
        find: 'await missing();\n        }\n        // Also',
        put: 'await missing();\n            return;\n        }\n        // Also',
      },
    ],
    where: ({ kill, variant }) => kill.name.startsWith('unlink') && variant.powerAgain !== undefined,
  },
  {
    name: 'the database does not sync its commits',
    edits: [
      {
        file: 'ledger/sqlite/client/serialized-libsql.js',
        find: 'PRAGMA synchronous=FULL',
        put: 'PRAGMA synchronous=OFF',
      },
    ],
    where: powerIsLost,
  },
  {
    name: 'bytes are acknowledged before they are synced',
    edits: [
      {
        file: 'blobs/file/take-bytes.js',
        find: 'await request.sync(writer.position());',
        put: 'void request.sync(writer.position());',
      },
    ],
    where: (run) => powerIsLost(run) && (of('stock')(run) || of('three chunks')(run)),
  },
  {
    name: 'what was not synced is believed after the power was lost',
    edits: [{ file: 'lib/holder-name.js', find: 'holder.startsWith(`${BOOT_ID}/`)', put: 'true' }],
    where: (run) => powerIsLost(run) && of('stock')(run),
  },
  {
    name: 'opening a blob truncates it',
    edits: [
      {
        file: 'blobs/file/file-blobs.js',
        find: 'if (size > offset)\n                await files.truncate(file, offset);',
        put: 'await files.truncate(file, 0);',
      },
    ],
  },
  {
    name: 'the bytes are removed before the intent is recorded',
    edits: [{ file: 'sequence/drive.js', find: 'await record({}); // the intent first, the bytes second', put: ';' }],
    where: of('another digest'),
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
    where: (run) => of('another digest')(run) || of('cancelled')(run),
  },
  {
    name: 'the point is recorded before the reference',
    edits: [
      {
        file: 'ledger/sqlite/run.js',
        find: 'switch (wants) {',
        put: "if (sql.startsWith('INSERT INTO landfall_references')) on.exec('RELEASE landfall_job; COMMIT; BEGIN IMMEDIATE; SAVEPOINT landfall_job'); switch (wants) {",
      },
    ],
  },
  {
    name: 'effects are owed in a transaction after that of the reference',
    edits: [
      {
        file: 'ledger/sqlite/ledger.js',
        find: "return { outcome: 'referenced', operation: await write(() => statements.refer(lease, from, intent, NO_HOOK)) };",
        put: `const operation = await write(() => statements.refer(lease, from, { ...intent, effects: [] }, NO_HOOK));
            await access.writer.write((on) => intent.effects.forEach((e) => on.run("INSERT INTO landfall_effects (effect_id, owner, operation_id, kind, name, type, payload, due_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)", [e.effectId, from.owner, from.id, from.kind, e.name, e.type, JSON.stringify(e.payload(operation.reference))])));
            return { outcome: 'referenced', operation };`,
      },
    ],
  },
  {
    name: 'an effect is settled before it is delivered',
    edits: [
      {
        file: 'effects/effects.js',
        find: 'return attempt(target, effect);',
        put: "await ledger.settleEffect(effect, { outcome: 'delivered' }); return attempt(target, effect);",
      },
    ],
  },
  {
    name: 'what a dead receiver left is believed without a check',
    edits: [
      {
        file: 'ledger/statements/leases.js',
        find: 'SET ${UNCLEAN}, ${NO_LEASE},',
        put: 'SET unclean_holder = NULL, "offset" = file_size, ${NO_LEASE},',
      },
    ],
  },
]
