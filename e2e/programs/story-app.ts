/**
 * The demo application with hooks that wait, fail or do what a hook must not do, as a separate program that can be
 * killed: `node story-app.js
 * '{"directory":"…","page":"…","hooks":[{"files":"slow","at":"before-row","does":"wait","ms":30000}]}'`. It prints one
 * line with its address when it is ready. `/-/story` answers what it has seen.
 */
import { createServer, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { guardServer, nodeServerOptions } from '@landfall/server'
import { sql } from 'drizzle-orm'
import * as v from 'valibot'
import { createDemo } from '../demo/demo.js'
import { serveProgram } from './serve.js'

const hookSchema = v.object({
  /** The hook applies to files whose name begins with this. */
  files: v.string(),
  /** When the hook acts: before the application's first statement, or between its row and the commit. */
  at: v.picklist(['before-row', 'after-row']),
  /**
   * What the hook does.
   *
   * - `wait`: it waits until `ms` after the first of these files came, like a peer that is away for that time.
   * - `throw`: it throws at the first `times` attempts for each file.
   * - `write-past-tx`: at those attempts it writes through `db`, although it must write through `tx`.
   */
  does: v.picklist(['wait', 'throw', 'write-past-tx']),
  ms: v.optional(v.number(), 0),
  times: v.optional(v.number(), 1),
})
type Hook = v.InferOutput<typeof hookSchema>

const settingsSchema = v.object({
  /** The folder with the database `app.db` and the blobs. They survive a restart. */
  directory: v.string(),
  /** The folder of the built page. */
  page: v.string(),
  hooks: v.optional(v.array(hookSchema), []),
  completerIntervalMs: v.optional(v.number()),
  /** True: the application writes rows without a pause, until its report is requested. */
  writes: v.optional(v.boolean(), false),
  /** False: each request needs a new connection. */
  keepAlive: v.optional(v.boolean(), true),
})
export type StorySettings = v.InferInput<typeof settingsSchema>

/** What `/-/story` answers. */
export interface StoryReport {
  /** The attempts of `onReference` that were made to fail, with their errors and how long each took. */
  readonly faults: readonly { name: string; code: string; message: string; tookMs: number }[]
  /**
   * The writes of the application itself, each of which is a statement or a transaction: how many were committed, and
   * which errors came.
   */
  readonly writes: { readonly committed: number; readonly errors: readonly string[] }
}

const settings = v.parse(settingsSchema, JSON.parse(process.argv[2] ?? '{}'))
const faults: StoryReport['faults'][number][] = []
const firstAtMs = new Map<Hook, number>()
const attempts = new Map<string, number>()

async function act(hook: Hook, name: string): Promise<void> {
  if (hook.does === 'wait') {
    const untilMs = (firstAtMs.get(hook) ?? performance.now()) + hook.ms
    firstAtMs.set(hook, untilMs - hook.ms)
    await sleep(Math.max(0, untilMs - performance.now()))
    return
  }
  const before = attempts.get(name) ?? 0
  attempts.set(name, before + 1)
  if (before >= hook.times) return
  const startMs = performance.now()
  try {
    if (hook.ms > 0) await sleep(hook.ms)
    if (hook.does === 'throw') throw new Error(`onReference fails, ${before + 1} of ${hook.times}`)
    await demo.db.run(sql`INSERT INTO notes (text) VALUES (${name})`)
  } catch (error) {
    const { code, message } = described(error)
    faults.push({ name, code, message, tookMs: performance.now() - startMs })
    throw error
  }
}

const hook =
  (at: Hook['at']) =>
  async ({ name }: { name: string }): Promise<void> => {
    for (const each of settings.hooks) if (each.at === at && name.startsWith(each.files)) await act(each, name)
  }

/** Drizzle wraps the error of the driver, so the code is that of the cause. */
function described(error: unknown): { code: string; message: string } {
  const messages: string[] = []
  let code = ''
  for (let at = error; at instanceof Error; at = at.cause) {
    messages.push(at.message)
    if ('code' in at && typeof at.code === 'string') code = at.code
  }
  return { code, message: messages.join(' <- ') }
}

const demo = await createDemo({
  directory: settings.directory,
  page: settings.page,
  beforeReference: hook('before-row'),
  afterRow: hook('after-row'),
  ...(settings.completerIntervalMs === undefined ? {} : { completerIntervalMs: settings.completerIntervalMs }),
})
await demo.db.run(sql`CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)`)

const own = { writing: settings.writes }
let committed = 0
const errors: string[] = []
async function keepWriting(): Promise<void> {
  for (let n = 0; own.writing; n += 1) {
    try {
      if (n % 2 === 0) await demo.db.run(sql`INSERT INTO notes (text) VALUES (${`note ${n}`})`)
      else
        await demo.db.transaction(async (tx) => {
          await tx.run(sql`INSERT INTO notes (text) VALUES (${`note ${n}`})`)
          // As applications do, it waits for something else between its statements.
          await sleep(1)
          await tx.run(sql`UPDATE notes SET text = text || '.' WHERE id = (SELECT max(id) FROM notes)`)
        })
      committed += 1
    } catch (error) {
      errors.push(described(error).message)
    }
  }
}
const written = keepWriting()

async function answerReport(response: ServerResponse): Promise<void> {
  await written
  const report: StoryReport = { faults, writes: { committed, errors } }
  response.end(JSON.stringify(report))
}

const listener = getRequestListener(demo.fetch)
const server = guardServer(
  createServer(nodeServerOptions(), (request, response) => {
    if (!settings.keepAlive) response.shouldKeepAlive = false
    if (request.url !== '/-/story') return void listener(request, response)
    own.writing = false
    return void answerReport(response)
  }),
)
await serveProgram(server, () => {
  own.writing = false
  return demo.close()
})
