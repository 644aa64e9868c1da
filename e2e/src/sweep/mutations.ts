/**
 * `npm run sweep -- mutations [NAME]`: does the harness bite? Each mutation breaks a copy of the built server where it
 * matters; the sweep must turn red, or the model.
 */
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Browser, chromium } from '@playwright/test'
import { launchOptions } from '../chromium.js'
import { repository } from '../landfall.js'
import { describe, sweep } from './main.js'
import { MODEL_MUTATIONS, type ModelMutation } from './model-mutations.js'
import { type Edit, mutate } from './mutate.js'
import type { Run } from './run.js'

interface Mutation {
  readonly name: string
  readonly edits: readonly Edit[]
  /** Where it must show; default: anywhere. */
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
        file: 'blobs/take-bytes.js',
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
    name: 'the bytes go before the intent is recorded',
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
    name: 'what a dead receiver left is believed without a look',
    edits: [
      {
        file: 'ledger/statements/leases.js',
        find: 'SET ${UNCLEAN}, ${NO_LEASE},',
        put: 'SET unclean_holder = NULL, "offset" = file_size, ${NO_LEASE},',
      },
    ],
  },
]

/** Runs until the first violation, at most so many. */
export async function caught(
  browser: Browser,
  mutation: Mutation,
  { sample, seed }: { sample: number; seed: number },
): Promise<{ by: string | null; runs: number }> {
  const folder = await mutate(mutation)
  try {
    const { results } = await sweep(browser, {
      sample,
      seed,
      parallel: 2,
      bail: true,
      serverFolder: folder,
      ...(mutation.where === undefined ? {} : { only: mutation.where }),
    })
    const bad = results.find(({ outcome }) => outcome === 'bad')
    return { by: bad === undefined ? null : describe(bad), runs: results.length }
  } catch (error) {
    // Already without a kill.
    return { by: error instanceof Error ? error.message : String(error), runs: 0 }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** By the model, on the single faults of one scenario. */
async function caughtByModel(mutation: ModelMutation): Promise<string | null> {
  const folder = await mutate(mutation)
  try {
    const output = await new Promise<string>((resolve) => {
      const vitest = join(repository, 'node_modules/.bin/vitest')
      const env = {
        ...process.env,
        NO_COLOR: '1',
        LANDFALL_MODEL: 'singles',
        LANDFALL_MODEL_DIST: join(folder, 'dist'),
      }
      execFile(
        vitest,
        ['run', 'test/model.test.ts', '-t', ` ${mutation.where}`],
        { cwd: join(repository, 'server'), env, timeout: 300_000, maxBuffer: 64 * 1024 * 1024 },
        (_error, stdout, stderr) => resolve(stdout + stderr),
      )
    })
    // Only a violation counts, not that something failed.
    return /^\+ {3}"(.*\n(?:\+ {5}\d+: .*\n?)+)/m.exec(output)?.[1]?.replaceAll(/^\+ +/gm, '     ') ?? null
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function main(): Promise<void> {
  const browser = await chromium.launch(launchOptions())
  const isMeant = ({ name }: { name: string }): boolean => name.includes(process.argv[2] ?? '')
  const say = (name: string, by: string | null, where: string): void => {
    process.stdout.write(`${by === null ? 'NOT CAUGHT' : 'caught'}  ${name}  (${where})\n     ${by ?? ''}\n`)
    if (by === null) process.exitCode = 1
  }
  for (const mutation of MODEL_MUTATIONS.filter(isMeant))
    say(mutation.name, await caughtByModel(mutation), `model, ${mutation.where}`)
  for (const mutation of MUTATIONS.filter(isMeant)) {
    const { by, runs } = await caught(browser, mutation, { sample: 150, seed: 3 })
    say(mutation.name, by, `sweep, ${runs} runs`)
  }
  await browser.close()
}

if (process.argv[1] === import.meta.filename) {
  await main()
  // What was given up in the middle of a run may still be waited for.
  process.exit()
}
