import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { OWNER_HEADER, startLandfall } from '../../programs/landfall.js'
import { repository } from '../../ground/repository.js'
import { ownHeaders } from '../../clients/wire.js'
import { freePort } from '../../ground/ports.js'
import { startProcess } from '../../ground/processes.js'

const FILES = 150
/** Between the first upload and the last; the receiver is killed, stopped and slow all the time. */
const SPREAD_MS = 15_000
/** Pauses between attempts are drawn below 5, 10, 20, … seconds. */
const DELIVERED_WITHIN_MS = 180_000

test('every effect is delivered under one id, while its receiver is killed, stopped and slow', async () => {
  const directory = await temporaryDirectory('landfall-receiver-')
  const file = join(directory.path, 'received')
  const port = await freePort()
  const receiver = await startProcess({
    name: 'receiver',
    command: process.execPath,
    args: [`${repository}e2e/dist/programs/webhook-receiver.js`, String(port), file, '1000'],
    ready: /ready/,
  })
  const server = await startLandfall(join(directory.path, 'data'), {
    LANDFALL_WEBHOOK_URL: `http://127.0.0.1:${port}/`,
    LANDFALL_WEBHOOK_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    LANDFALL_WEBHOOK_ALLOW_PRIVATE: 'true',
  })
  const origin = server.ready[1] ?? ''
  const over = new AbortController()
  try {
    const disturbed = disturb()
    const sent = await Promise.all(
      Array.from({ length: FILES }, async (_, n) => {
        await sleep((SPREAD_MS * n) / FILES)
        return upload(origin)
      }),
    )
    over.abort()
    const kills = await disturbed
    expect(kills).toBeGreaterThanOrEqual(3)
    // The receiver being away delayed none of them.
    expect(sent.filter(({ tookMs }) => tookMs > 5_000)).toEqual([])

    const ids = sent.map(({ id }) => id)
    const deadline = performance.now() + DELIVERED_WITHIN_MS
    while (
      performance.now() < deadline &&
      !(await Promise.all(ids.map((id) => isCompleted(origin, id)))).every(Boolean)
    )
      await sleep(500)

    const byOperation = new Map<string, Set<string>>()
    const lines = readFileSync(file, 'utf8').trim().split('\n')
    for (const line of lines) {
      const [effect = '', operation = ''] = line.split(' ')
      byOperation.set(operation, (byOperation.get(operation) ?? new Set()).add(effect))
    }
    process.stdout.write(`receiver: ${FILES} effects, ${lines.length} deliveries, ${kills} kills\n`)
    expect([...byOperation.keys()].toSorted()).toEqual(ids.toSorted())
    expect([...byOperation.values()].filter((effects) => effects.size !== 1)).toEqual([])
    // Those that were taken and not answered came again: the test would not see a single attempt.
    expect(lines.length).toBeGreaterThan(FILES)
  } finally {
    over.abort()
    await server.kill()
    await receiver.kill('SIGKILL')
    await directory.remove()
  }

  async function disturb(): Promise<number> {
    let kills = 0
    while (!over.signal.aborted) {
      await sleep(1_200)
      await receiver.kill('SIGKILL')
      kills += 1
      await sleep(800)
      await receiver.restart()
      await sleep(800)
      process.kill(receiver.pid, 'SIGSTOP')
      await sleep(1_000)
      process.kill(receiver.pid, 'SIGCONT')
    }
    return kills
  }
}, 300_000)

/** One small file, declared and sent as a client does. */
async function upload(origin: string): Promise<{ id: string; tookMs: number }> {
  const startMs = performance.now()
  const id = crypto.randomUUID()
  const common = { [OWNER_HEADER]: 'receiver' }
  const declared = await fetch(`${origin}/uploads/operations/${id}`, {
    method: 'PUT',
    headers: { ...(await ownHeaders(`${origin}/uploads`, common)), 'Content-Type': 'application/json' },
    body: JSON.stringify({ kind: 'file', file: { name: 'a.bin', size: 16, type: 'application/octet-stream' } }),
  })
  expect(declared.status, await declared.text()).toBe(201)
  const sent = await fetch(`${origin}/uploads/files/${id}`, {
    method: 'PATCH',
    headers: {
      ...common,
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
    },
    body: new Uint8Array(16),
  })
  expect(sent.status, await sent.text()).toBe(204)
  return { id, tookMs: performance.now() - startMs }
}

async function isCompleted(origin: string, id: string): Promise<boolean> {
  const answer = await fetch(`${origin}/uploads/operations/${id}`, { headers: { [OWNER_HEADER]: 'receiver' } })
  return ((await answer.json()) as { recoveryPoint: string }).recoveryPoint === 'completed'
}
