/**
 * Does the client's sweep bite? Each mutation breaks a copy of the built client where it matters, and a page is built on
 * it; the sweep must turn red.
 */
import { cp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'vite'
import { repository } from '../ground/landfall.js'
import { describeClient, sweepClient } from '../sweep/client/main.js'

interface Edit {
  /** Must be found, or the mutation is out of date. */
  readonly find: string
  readonly put: string
}

export interface ClientMutation {
  readonly name: string
  /** In the client's `dist/index.js`. */
  readonly edits: readonly Edit[]
  /** The scenarios in which it matters: part of their name. */
  readonly only: string
  /** A kill that finds it, of the many that might: a sweep of all takes long. */
  readonly at: RegExp
}

const REFERENCE =
  '{ operationId: live.id, size, type: "", digest: live.record().digest, digestSource: "client", storedAt: "", url: "", data: null }'

export const CLIENT_MUTATIONS: readonly ClientMutation[] = [
  {
    name: 'the record is written after the first request',
    edits: [
      { find: 'entry.live.amend((stored) => stored ?? record);', put: ';' },
      { find: 'await live.amend((stored) => stored);', put: ';' },
      {
        find: 'session.offsetKnown = true;',
        put: 'session.offsetKnown = true; (globalThis.unwritten ??= new Map()).set(live.id, live.record());',
      },
      {
        find: 'const next = change(stored ?? known);',
        put: 'const next = change(stored ?? known ?? globalThis.unwritten?.get(id));',
      },
    ],
    only: 'chunks',
    at: /^(before|after) PUT/,
  },
  {
    name: 'the last PATCH is taken for success',
    edits: [
      {
        find: 'outcome.offsetBytes === size ? { point: "received" }',
        put: `outcome.offsetBytes === size ? { point: "referenced", reference: ${REFERENCE} }`,
      },
    ],
    only: 'chunks',
    at: /^after told/,
  },
  {
    name: 'the record goes before the application is told',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'await live.amend(() => void 0); telling.outcome(standing.point, upload);',
      },
    ],
    only: 'a small file',
    at: /^after commit put operations removed/,
  },
  {
    name: 'told is taken for acknowledged',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'telling.outcome(standing.point, upload); await live.amend(() => void 0);',
      },
    ],
    only: 'later visit',
    at: /^after commit (put|delete) operations/,
  },
  {
    name: 'an acknowledgement leaves the record',
    edits: [
      {
        find: 'if (isSettled(live.record().standing)) await live.amend(() => void 0);',
        put: ';',
      },
    ],
    only: 'a small file',
    at: /^after acknowledged/,
  },
  {
    name: 'what is found in the journal goes on under a new id',
    edits: [
      {
        find: 'drive(enter(record, null, true), signal)',
        put: 'drive(enter({ ...record, id: v7() }, null, true), signal)',
      },
      { find: 'await live.amend((stored) => stored);', put: 'await live.amend((stored) => stored ?? live.record());' },
    ],
    only: 'a small file',
    at: /^after commit put operations declared/,
  },
  {
    name: 'a cancellation is promised before the journal has it',
    edits: [{ find: 'cancel: () => live.amend(cancelled)', put: 'cancel: async () => void live.amend(cancelled)' }],
    only: 'cancelled',
    at: /^before put operations cancelled/,
  },
  {
    name: 'a cancelled record goes without the word of the server',
    edits: [
      {
        find: 'const answer = await ledger.cancel(live.id, signal);',
        put: 'return { withdrawn: true }; const answer = {};',
      },
    ],
    only: 'cancelled',
    at: /^after commit put operations cancelled/,
  },
  {
    name: 'a new pick is not proven',
    // Neither before it is sent, nor by its digest, nor by what was accepted before that was known.
    edits: [
      { find: 'if (seen.digest !== prefix.value.digest) return reject("source-changed");', put: ';' },
      { find: 'if (session.sourceDigest !== live.record().digest) return lose(step, "source-changed");', put: ';' },
      { find: 'if (seen.ok && seen.digest !== prefix.value.digest) return "source-changed";', put: ';' },
    ],
    only: 'picked again',
    at: /^after PATCH/,
  },
  {
    name: 'bytes are noted as accepted before they are sent',
    edits: [
      {
        find: 'return digestIsOwed(live) ? ask(step) : sendChunk(step, source, acceptedBytes, end);',
        put: 'if (digestIsOwed(live)) return ask(step); await live.amend((stored) => ({ ...stored, standing: { point: "declared", acceptedBytes: end } })); return sendChunk(step, source, acceptedBytes, end);',
      },
    ],
    only: 'chunks',
    at: /^before PATCH/,
  },
  {
    name: 'a stored copy is not used',
    edits: [{ find: 'if (copy === "none") return null;', put: 'return null;' }],
    only: 'chunks',
    at: /^after commit put operations declared, copy verified/,
  },
  {
    name: 'an outcome from the journal is not told',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'if (!live.snapshot().recovered) telling.outcome(standing.point, upload);',
      },
    ],
    only: 'a small file',
    at: /^after commit put operations referenced/,
  },
]

/** Builds the swept page on a changed copy of the client; answers its folder. */
export async function mutateClient({ name, edits }: ClientMutation): Promise<string> {
  const folder = join(repository, 'e2e/build/client-mutants', name.replaceAll(/\W+/g, '-'))
  await rm(folder, { recursive: true, force: true })
  await cp(join(repository, 'client/dist'), join(folder, 'client'), { recursive: true })
  const path = join(folder, 'client/index.js')
  let text = await readFile(path, 'utf8')
  for (const { find, put } of edits) {
    if (!text.includes(find)) throw new Error(`${name}: its place is not there any more: ${find}`)
    text = text.replace(find, () => put)
  }
  await writeFile(path, text)
  await build({
    configFile: join(repository, 'e2e/clients/pages/visited/vite.config.ts'),
    logLevel: 'warn',
    resolve: { alias: [{ find: /^@landfall\/client$/, replacement: path }] },
    build: { outDir: join(folder, 'page') },
  })
  return folder
}

/** Runs until the first violation, at most so many. */
export async function caughtInClient(
  mutation: ClientMutation,
  { sample, seed, parallel }: { sample: number | null; seed: number; parallel: number },
): Promise<{ by: string | null; runs: number }> {
  const folder = await mutateClient(mutation)
  try {
    const page = join(folder, 'page')
    const { results } = await sweepClient({
      sample,
      seed,
      parallel,
      bail: true,
      page,
      only: mutation.only,
      at: mutation.at,
    })
    const bad = results.find(({ outcome }) => outcome === 'bad')
    return { by: bad === undefined ? null : describeClient(bad), runs: results.length }
  } catch (error) {
    // Already without a kill.
    return { by: error instanceof Error ? error.message : String(error), runs: 0 }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function main(): Promise<void> {
  const only = process.argv[2] ?? ''
  for (const mutation of CLIENT_MUTATIONS.filter(({ name }) => name.includes(only))) {
    const { by, runs } = await caughtInClient(mutation, { sample: null, seed: 3, parallel: 1 })
    process.stdout.write(
      `${by === null ? 'NOT CAUGHT' : 'caught'}  ${mutation.name}  (${runs} runs)\n     ${by ?? ''}\n`,
    )
    if (by === null) process.exitCode = 1
  }
}

if (process.argv[1] === import.meta.filename) await main()
