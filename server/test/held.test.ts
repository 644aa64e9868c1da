/** How much of a shared server one user can occupy: file descriptors, memory and answers of the built program. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { content, eventually, later, newId } from './harness.js'
import { useProgram } from './program.js'
import { head, openLine } from './raw-http.js'

const program = useProgram()
const OURS = { 'X-Owner': 'ann', 'Landfall-Version': '1' }

async function start() {
  const server = await program.serve({ NODE_OPTIONS: '--max-old-space-size=768' })
  const port = Number(new URL(server.address).port)
  const pid = server.child.pid ?? 0
  const upload = async (owner: string, size = 5): Promise<string> => {
    const id = newId()
    expect((await server.declare(id, size, owner)).status).toBe(201)
    const answer = await fetch(`${server.address}/files/${id}`, {
      method: 'PATCH',
      headers: {
        'X-Owner': owner,
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': '0',
        'Content-Type': 'application/offset+octet-stream',
      },
      body: content(size),
    })
    expect(answer.status).toBe(204)
    await eventually(
      () => server.request('GET', `/operations/${id}`, { headers: { 'X-Owner': owner } }).then((got) => got.text()),
      (text) => text.includes('"reference":{'),
      60_000,
    )
    return id
  }
  return {
    ...server,
    port,
    upload,
    descriptors: () => readdirSync(`/proc/${pid}/fd`).length,
    residentMB: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024,
  }
}

test('connections that send requests ahead and are reset leave no file descriptor behind', async () => {
  const { port, upload, declare, descriptors } = await start()
  const id = await upload('ann', 3_000_000)
  const open = newId()
  await declare(open, 5)
  const before = descriptors()
  for (let n = 0; n < 20; n++) {
    const line = await openLine(port)
    line.send(
      head('GET', `/uploads/operations/${open}?wait=3`, OURS) + head('GET', `/uploads/files/${id}`, OURS).repeat(100),
    )
    await later(50)
    line.reset()
  }
  const attacked = descriptors()
  // The polls of connections that are no longer read end by themselves.
  const after = await eventually(
    async () => descriptors(),
    (now) => now <= before + 3,
    10_000,
  )
  process.stdout.write(`descriptors: ${before} before, ${attacked} just after, ${after} at the end\n`)
}, 60_000)

test('megabytes of requests that one connection sends ahead cost the server little memory', async () => {
  const { port, upload, declare, residentMB } = await start()
  const open = newId()
  await declare(open, 5)
  const before = residentMB()
  const line = await openLine(port)
  const poll = head('GET', `/uploads/operations/${open}?wait=20`, OURS)
  let sent = 0
  for (; sent < 12_000_000 && !line.socket.destroyed; await later(2)) {
    line.send(poll.repeat(500))
    sent += poll.length * 500
  }
  await later(500)
  const after = residentMB()
  const from = performance.now()
  await upload('bob')
  const tookMs = performance.now() - from
  line.destroy()
  process.stdout.write(
    `${sent} bytes sent ahead: resident ${before.toFixed(0)} MB before, ${after.toFixed(0)} after; another upload ${tookMs.toFixed(0)} ms\n`,
  )
  expect(after - before).toBeLessThan(150)
  expect(tookMs).toBeLessThan(5_000)
}, 60_000)

test.each([
  ['which all ask the same', () => []],
  ['which all ask something else', () => [newId()]],
] as const)(
  'two thousand polls, %s, and a stream of changes do not delay other owners',
  async (_, own) => {
    const { port, upload, declare, patch, residentMB } = await start()
    const ids = Array.from({ length: 39 }, newId)
    for (const id of ids) expect((await declare(id, 1_000)).status).toBe(201)
    const alone = performance.now()
    await upload('bob')
    const aloneMs = performance.now() - alone
    const before = residentMB()
    const lines = await Promise.all(Array.from({ length: 2_000 }, () => openLine(port)))
    let answered = 0
    const polling = lines.map(async (line) => {
      const poll = head('GET', `/uploads/operations?ids=${[...ids, ...own()].join()}&wait=20`, OURS)
      for (;;) {
        line.send(poll)
        const { headers } = await line.answer()
        answered += 1
        if (headers['retry-after'] !== undefined) await later(1_000 * Number(headers['retry-after']))
      }
    })
    const polled = Promise.allSettled(polling)
    await later(1_000)
    const until = Date.now() + 10_000
    const changing = (async () => {
      for (let n = 0; Date.now() < until; n++)
        await patch(ids[n % ids.length] ?? '', Math.floor(n / ids.length), content(1))
    })()
    const times: number[] = []
    while (Date.now() < until) {
      const from = performance.now()
      await upload('bob')
      times.push(performance.now() - from)
      await later(50)
    }
    const attacked = residentMB()
    await changing
    for (const line of lines) line.destroy()
    await polled
    const sorted = times.toSorted((a, b) => a - b)
    process.stdout.write(
      `${answered} polls answered; another owner's upload: ${aloneMs.toFixed(0)} ms alone, under attack p50 ${sorted[sorted.length >> 1]?.toFixed(0)} ms, ` +
        `longest ${sorted.at(-1)?.toFixed(0)} ms of ${times.length}; resident ${before.toFixed(0)} MB before, ${attacked.toFixed(0)} under attack\n`,
    )
    // The slowest upload is one during the first two thousand requests, which alone take seconds on a busy machine.
    expect(sorted[sorted.length >> 1]).toBeLessThan(1_000)
    expect(sorted.at(-1)).toBeLessThan(12_000)
    expect(attacked - before).toBeLessThan(250)
  },
  120_000,
)
