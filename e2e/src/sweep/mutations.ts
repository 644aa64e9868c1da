/**
 * `npm run sweep -- mutations`: does the harness bite? Each mutation breaks a copy of the built server where it matters;
 * the sweep must turn red.
 */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Browser, chromium } from '@playwright/test'
import { launchOptions } from '../chromium.js'
import { repository } from '../landfall.js'
import { describe, type Run, sweep } from './main.js'

interface Mutation {
  readonly name: string
  /** Below the server's `dist`. */
  readonly file: string
  /** Must be found, or the mutation is out of date. */
  readonly find: string | RegExp
  readonly put: string
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
    file: 'blobs/durable-files.js',
    find: /dataSync: promisify\(fdatasync\)/,
    put: 'dataSync: async () => {}',
    where: powerIsLost,
  },
  {
    name: 'small files are written without O_DSYNC',
    file: 'blobs/file.js',
    find: 'synced ? O_DSYNC : 0',
    put: '0',
    where: powerIsLost,
  },
  {
    name: 'names are not synced',
    file: 'blobs/durable-files.js',
    find: 'const start = async (directory) => files.sync(await fileOf(directory));',
    put: 'const start = async (directory) => void (await fileOf(directory));',
    where: powerIsLost,
  },
  {
    name: 'names of directories are not synced',
    file: 'blobs/durable-files.js',
    find: 'await Promise.all([sync(dirname(path)), nameDirectory(dirname(path))]);',
    put: 'await sync(dirname(path));',
    where: powerIsLost,
  },
  {
    name: 'the database does not sync its commits',
    file: 'ledger/serialized-libsql.js',
    find: 'PRAGMA synchronous=FULL',
    put: 'PRAGMA synchronous=OFF',
    where: powerIsLost,
  },
  {
    name: 'bytes are acknowledged before they are synced',
    file: 'blobs/take-bytes.js',
    find: 'await request.sync(writer.position());',
    put: 'void request.sync(writer.position());',
    where: (run) => powerIsLost(run) && (of('stock')(run) || of('three chunks')(run)),
  },
  {
    name: 'opening a blob truncates it',
    file: 'blobs/file.js',
    find: 'if (size > offset)\n                await files.truncate(file, offset);',
    put: 'await files.truncate(file, 0);',
  },
  {
    name: 'the bytes go before the intent is recorded',
    file: 'drive.js',
    find: 'await record({}); // the intent first, the bytes second',
    put: ';',
    where: of('another digest'),
  },
  {
    name: 'cleaned up is recorded before it is done',
    file: 'drive.js',
    find: /await deps\.blobs\.remove\(operation\.blobKey\);\s*await record\(\{ cleanupDue: false, attempts: 0, lastError: null \}\);/,
    put: 'await record({ cleanupDue: false, attempts: 0, lastError: null }); await deps.blobs.remove(operation.blobKey);',
    where: (run) => of('another digest')(run) || of('cancelled')(run),
  },
  {
    name: 'the point is recorded before the reference',
    file: 'ledger/sqlite-operations.js',
    find: /on\.run\(`INSERT INTO landfall_references/,
    put: "on.exec('RELEASE landfall_job; COMMIT; BEGIN IMMEDIATE; SAVEPOINT landfall_job'); on.run(`INSERT INTO landfall_references",
  },
  {
    name: 'an effect is settled before it is delivered',
    file: 'effects.js',
    find: 'const result = await attempt(target, effect);',
    put: "await ledger.settleEffect(effect, { outcome: 'delivered' }); const result = await attempt(target, effect);",
  },
  {
    name: 'what a dead receiver left is believed without a look',
    file: 'ledger/sqlite.js',
    find: /unclean_holder = COALESCE\(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END\),/,
    put: 'unclean_holder = NULL, "offset" = file_size,',
  },
]

export async function mutate(mutation: Mutation): Promise<string> {
  const folder = join(repository, 'e2e/build/mutants', mutation.name.replaceAll(/\W+/g, '-'))
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  await cp(join(repository, 'server/package.json'), join(folder, 'package.json'))
  await cp(join(repository, 'server/dist'), join(folder, 'dist'), { recursive: true })
  const path = join(folder, 'dist', mutation.file)
  const before = await readFile(path, 'utf8')
  const after = before.replace(mutation.find, mutation.put)
  if (after === before) throw new Error(`${mutation.name}: its place is not there any more`)
  await writeFile(path, after)
  return folder
}

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

async function main(): Promise<void> {
  const browser = await chromium.launch(launchOptions())
  const only = process.argv[2]
  for (const mutation of MUTATIONS) {
    if (only !== undefined && !mutation.name.includes(only)) continue
    const { by, runs } = await caught(browser, mutation, { sample: 150, seed: 3 })
    process.stdout.write(
      `${by === null ? 'NOT CAUGHT' : 'caught'}  ${mutation.name}  (${runs} runs)\n     ${by ?? ''}\n`,
    )
    if (by === null) process.exitCode = 1
  }
  await browser.close()
}

if (process.argv[1] === import.meta.filename) await main()
