import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createClient } from '@libsql/client'
import { until } from '../ground/patience.js'
import { nodeServer, type RunningProcess, startProcess } from '../ground/processes.js'
import { compiled } from '../ground/repository.js'
import type { ApplicationSettings } from '../programs/application.js'
import { startReceiver } from '../programs/receiver.js'
import { dataDirectory, many, type Say, seconds } from './report.js'

/** How many deliveries to one receiver Landfall has under way at a time. */
const PARALLEL = 16
const NAMES = ['quick', 'hangs'] as const
const PRODUCTION = { NODE_ENV: 'production' }
const execute = promisify(execFile)

/**
 * `npm run bench -- --only effects [--count 10000]` delivers the webhooks of `--count` operations to a receiver on
 * loopback. It compares this with a loop that only POSTs as many bodies, as many at a time. Then it delivers those of
 * the same number of operations while a second receiver takes requests and never answers.
 *
 * @returns false if one was not delivered, or was delivered more than once.
 */
export async function benchEffects(count: number, say: Say): Promise<boolean> {
  const bare = await bareLoop(count)
  say(rate('a bare loop of POSTs', bare, count))
  const alone = await drain(count, false)
  say(rate('webhooks, one receiver', alone.wallMs, count))
  const beside = await drain(count, true)
  say(rate('webhooks, while a second receiver hangs', beside.wallMs, count))
  say(
    `÷ the bare loop: ${(alone.wallMs / bare).toFixed(2)}; ` +
      `÷ undisturbed, while one hangs: ${(beside.wallMs / alone.wallMs).toFixed(2)} ` +
      `(${beside.hung} requests hung at the end)`,
  )
  const wrong = [alone, beside].flatMap(({ deliveries, ids, delivered }) =>
    deliveries === count && ids === count && delivered === count ? [] : [{ deliveries, ids, delivered }],
  )
  say(wrong.length === 0 ? `each of ${count} was delivered once, and recorded` : `WRONG: ${JSON.stringify(wrong)}`)
  return wrong.length === 0
}

interface Drained {
  /** The time from the first request to the last one. */
  readonly wallMs: number
  readonly deliveries: number
  readonly ids: number
  /** The number of delivered effects in the ledger. */
  readonly delivered: number
  readonly hung: number
}

async function drain(count: number, oneHangs: boolean): Promise<Drained> {
  const directory = await dataDirectory('bench-effects-')
  const quick = await startCounting()
  const hanging = await startCounting(false)
  try {
    const empty = await startServer(directory.path, {})
    await empty.kill()
    await owe(directory.path, count, oneHangs ? NAMES : ['quick'])
    const server = await startServer(directory.path, { quick: quick.url, ...(oneHangs ? { hangs: hanging.url } : {}) })
    try {
      await until(
        () => quick.ids.length >= count,
        600_000,
        () => `only ${quick.ids.length} of ${count} delivered`,
        20,
      )
      const hung = hanging.ids.length
      const wallMs = quick.tookMs()
      // Each delivery is recorded after its answer.
      const delivered = await untilDelivered(directory.path, count)
      return { wallMs, deliveries: quick.ids.length, ids: new Set(quick.ids).size, delivered, hung }
    } finally {
      await server.kill()
    }
  } finally {
    await Promise.all([quick.close(), hanging.close()])
    await directory.remove()
  }
}

/** Nothing is uploaded. The server's completer delivers what the ledger says is owed. */
function startServer(directory: string, receivers: Readonly<Record<string, string>>): Promise<RunningProcess> {
  const settings: ApplicationSettings = { directory, receivers, signed: true }
  return startProcess(nodeServer(compiled('programs/application'), [JSON.stringify(settings)], PRODUCTION))
}

async function bareLoop(count: number): Promise<number> {
  const to = await startCounting()
  try {
    await execute(process.execPath, [compiled('clients/post-bodies'), to.url, String(count), String(PARALLEL)])
    return to.tookMs()
  } finally {
    await to.close()
  }
}

/** Makes so many referenced operations. Each owes the effects that a reference's transaction would have written. */
async function owe(directory: string, count: number, names: readonly string[]): Promise<void> {
  const client = createClient({ url: `file:${join(directory, 'landfall.db')}` })
  const digest = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
  try {
    await client.execute({
      sql: `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated,
          facts, blob_key, created_at, updated_at, expires_at, owes_effects)
        WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)
        SELECT 'bench', printf('00000000-0000-4000-8000-%012x', n), 'file', 'referenced', 'photo.jpg', 0, 'image/jpeg',
          '{}', '{}', 'file', printf('%032x', n), 1, 1, 1, 1 FROM numbers`,
      args: [count],
    })
    await client.execute(
      `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
        SELECT owner, id, blob_key, 0, 'image/jpeg', '${digest}', 'server', 1, 'null' FROM landfall_operations`,
    )
    for (const name of names)
      await client.execute({
        sql: `INSERT INTO landfall_effects (effect_id, owner, operation_id, kind, name, type, payload, due_at, created_at)
          SELECT ? || id, owner, id, 'file', ?, 'webhook', json_object(
            'operation', json_object('id', id, 'owner', owner, 'kind', kind, 'file',
              json_object('name', file_name, 'size', 0, 'type', file_type), 'metadata', json('{}'), 'createdAt', 1),
            'reference', json_object('size', 0, 'type', file_type, 'digest', '${digest}', 'storedAt', 1, 'data', NULL)),
            1, 1 FROM landfall_operations`,
        args: [`${name}-`, name],
      })
  } finally {
    client.close()
  }
}

const RECORDED_WITHIN_MS = 30_000

async function untilDelivered(directory: string, count: number): Promise<number> {
  const client = createClient({ url: `file:${join(directory, 'landfall.db')}` })
  try {
    for (const deadline = performance.now() + RECORDED_WITHIN_MS; ; await sleep(50)) {
      const { rows } = await client.execute(
        `SELECT COUNT(*) AS n FROM landfall_effects WHERE name = 'quick' AND delivered_at IS NOT NULL`,
      )
      const delivered = Number(rows[0]?.['n'])
      if (delivered >= count || performance.now() > deadline) return delivered
    }
  } finally {
    client.close()
  }
}

/** Starts a receiver that counts requests. */
async function startCounting(answers = true) {
  const ids: string[] = []
  let firstMs = 0
  let lastMs = 0
  const receiver = await startReceiver({
    answers,
    parses: false,
    onDelivery(id) {
      lastMs = performance.now()
      if (ids.length === 0) firstMs = lastMs
      ids.push(id)
    },
  })
  return { url: receiver.url, close: receiver.close, ids, tookMs: () => lastMs - firstMs }
}

const rate = (what: string, wallMs: number, count: number): string =>
  `${what}: ${many(count)} in ${seconds(wallMs)}, ${many(Math.round(count / (wallMs / 1000)))}/s`
