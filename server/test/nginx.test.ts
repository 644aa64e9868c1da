/** The nginx configuration that is shipped, before a real server: what a proxy can spoil, and this one does not. */
import { once } from 'node:events'
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2'
import { type AddressInfo, connect, createServer } from 'node:net'
import { afterEach, expect, test as vitest } from 'vitest'
import { startPostgres } from '../../e2e/ground/postgres.js'
import { content, digestOf, eventually, later, newId } from './harness.js'
import { findProgram } from './debian.js'
import { freePort, startNginx } from './nginx.js'
import { nodesOn } from './nodes.js'
import { ownerTags } from './owner-tags.js'
import { useProgram } from './program.js'
import { head, openLine } from './raw-http.js'
import { s3Server } from './s3.js'
import { slowUpload } from './slow-upload.js'

const found = findProgram('nginx', 'nginx-light')
const program = useProgram()
let nginx: Awaited<ReturnType<typeof startNginx>> | undefined
afterEach(async () => {
  await nginx?.stop()
  nginx = undefined
})

const missing = 'missing' in found ? ` (skipped: ${found.missing})` : ''
const test = (name: string, body: () => Promise<void>) => vitest.skipIf('missing' in found)(name + missing, body)

const as = (name: string) => ({ Authorization: `Basic ${Buffer.from(`${name}:secret`).toString('base64')}` })

const TUS = { 'Tus-Resumable': '1.0.0', 'Content-Type': 'application/offset+octet-stream' }
const noted = (bytes: number) => `filename YQ==,note ${Buffer.from('x'.repeat(bytes)).toString('base64')}`

async function start() {
  const server = await program.serve({ LANDFALL_METRICS_PATH: '/metrics' })
  // One of two nodes is not there.
  return { ...server, ...(await before([await freePort(), portOf(server)])) }
}

const portOf = ({ address }: { readonly address: string }) => Number(new URL(address).port)

async function before(nodePorts: readonly number[]) {
  if ('missing' in found) throw new Error(found.missing)
  const proxy = await startNginx(found.path, program.directory, nodePorts)
  nginx = proxy
  expect([proxy.checked.status, proxy.checked.stderr]).toEqual([0, expect.stringContaining('test is successful')])
  await proxy.start()
  const tagOf = ownerTags((authorization) =>
    fetch(`${proxy.address}/uploads/operations?open`, { headers: { Authorization: authorization } }),
  )
  const ownHeaders = async (given: Record<string, string> = {}) => {
    const headers = { ...as('ann'), 'Landfall-Version': '1', ...given }
    const { Authorization: authorization = '' } = headers as Record<string, string>
    return authorization === '' ? headers : { ...headers, 'Landfall-Owner': await tagOf(authorization) }
  }
  const request = async (
    method: string,
    path: string,
    init: { headers?: Record<string, string>; body?: string | Uint8Array<ArrayBuffer> } = {},
  ) =>
    fetch(proxy.address + path, {
      method,
      ...init,
      headers: await ownHeaders(init.headers),
    })
  const declare = (id: string, size: number, name = 'a', user = 'ann') =>
    request('PUT', `/uploads/operations/${id}`, {
      headers: as(user),
      body: JSON.stringify({ file: { name, size, type: '' } }),
    })
  const patch = (id: string, body: Uint8Array<ArrayBuffer>, user = 'ann', offset = 0) =>
    request('PATCH', `/uploads/files/${id}`, {
      headers: { ...as(user), ...TUS, 'Upload-Offset': String(offset) },
      body,
    })
  /** A file that is stored; its id. */
  const stored = async (name: string, user = 'ann') => {
    const id = newId()
    expect((await declare(id, 5, name, user)).status).toBe(201)
    expect((await patch(id, content(5), user)).status).toBe(204)
    await eventually(
      () => request('GET', `/uploads/operations/${id}`, { headers: as(user) }).then((answer) => answer.text()),
      (text) => text.includes('"reference":{'),
    )
    return id
  }
  return { proxy, tagOf: () => tagOf(as('ann').Authorization), request, declare, patch, stored }
}

test('a file of several megabytes goes through and comes back, though one of two nodes is not there', async () => {
  const { request, declare } = await start()
  const bytes = content(5_000_000)
  // Often enough that each of the two is asked first.
  for (let n = 0; n < 4; n++) {
    const id = newId()
    expect((await declare(id, bytes.length)).status).toBe(201)
    const patched = await request('PATCH', `/uploads/files/${id}`, {
      headers: { 'Tus-Resumable': '1.0.0', 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' },
      body: bytes,
    })
    expect([patched.status, patched.headers.get('Upload-Offset')]).toEqual([204, '5000000'])
    await eventually(
      () => request('GET', `/uploads/files/${id}`),
      ({ status }) => status === 200,
    )
    const stored = await request('GET', `/uploads/files/${id}`)
    expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
  }
})

test('who asks is said by nginx and by nobody else, and what is not for the world is not served', async () => {
  const { request, declare } = await start()
  const id = newId()
  expect((await declare(id, 5)).status).toBe(201)
  expect((await request('GET', `/uploads/operations/${id}`, { headers: { Authorization: '' } })).status).toBe(401)
  const posing = { ...as('bob'), 'X-Owner': 'ann' }
  expect((await request('GET', `/uploads/operations/${id}`, { headers: posing })).status).toBe(404)
  for (const path of ['/health/ready', '/health/live', '/metrics'])
    expect((await request('GET', path)).status).toBe(404)
})

test('bytes are acknowledged while they are still being sent, and what is answered early arrives', async () => {
  const { child, exited, proxy, tagOf, request, declare } = await start()
  const id = newId()
  const bytes = content(20_000_000)
  expect((await declare(id, bytes.length)).status).toBe(201)
  const upload = slowUpload(`${proxy.address}/uploads`, id, {
    bytes,
    headers: as('ann'),
    ownerTag: await tagOf(),
  })
  const offset = async () =>
    ((await (await request('GET', `/uploads/operations/${id}`)).json()) as { offset: number }).offset
  // After two seconds at the latest.
  expect(await eventually(offset, (acknowledged) => acknowledged > 0, 10_000)).toBeLessThan(bytes.length)
  child.kill('SIGTERM')
  const answer = await upload.answered
  expect([answer.status, answer.offset > 0]).toEqual([204, true])
  expect(await exited).toMatchObject({ code: 0 })
})

test('a client that waits for a change is held for as long as it asked for', async () => {
  const { request, declare } = await start()
  const id = newId()
  const declared = await declare(id, 5)
  expect(declared.status).toBe(201)
  const from = performance.now()
  const waited = await request('GET', `/uploads/operations/${id}?wait=3`)
  expect(waited.status).toBe(200)
  expect(performance.now() - from).toBeGreaterThan(2_500)
})

test("a long name and large metadata, which are nobody's fault, go through both ways", async () => {
  const { proxy, request, stored } = await start()
  const name = `${'漢'.repeat(400)}.txt`
  const file = await request('GET', `/uploads/files/${await stored(name)}`)
  expect([file.status, await file.arrayBuffer()]).toEqual([200, content(5).buffer])
  for (const bytes of [5_000, 16_000]) {
    const created = await request('POST', '/uploads/files', {
      headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '5', 'Upload-Metadata': noted(bytes) },
    })
    expect(created.status).toBe(201)
    const line = await openLine(proxy.port)
    line.send(head('HEAD', created.headers.get('Location') ?? '', { ...as('ann'), ...TUS }))
    const told = await line.answer('HEAD')
    expect([told.status, told.headers['upload-metadata']]).toEqual([200, noted(bytes)])
    line.destroy()
  }
})

test('a head that is too large is refused by nginx, and none that it passes on by a node', async () => {
  const { request } = await start()
  const answered = async (lines: number, kilobytes: number) => {
    const line = 'x'.repeat(kilobytes * 1024)
    const headers = Object.fromEntries(Array.from({ length: lines }, (_, n) => [`X-Filling-${n}`, line]))
    const { status, headers: said } = await request('GET', '/uploads/operations?open', { headers })
    return [lines, kilobytes, status, said.get('Server')?.split('/')[0]]
  }
  for (const [lines, kilobytes, status] of [
    [1, 1, 200],
    [1, 7, 200],
    [1, 15, 200],
    [1, 21, 200],
    [1, 31, 200],
    [2, 31, 200],
    [1, 33, 400],
    [3, 31, 400],
    [10, 31, 400],
    [60, 1, 200],
    [90, 1, 400],
  ] as const)
    expect(await answered(lines, kilobytes)).toEqual([lines, kilobytes, status, 'nginx'])
})

/**
 * Bob asks for six seconds for all that a node or nginx refuses, while Ann uploads one file after the other. None of
 * Ann's requests may fail.
 */
async function attack({ proxy, request, declare, patch, stored }: Awaited<ReturnType<typeof before>>) {
  const long = await stored('漢'.repeat(500), 'bob')
  const open = newId()
  await declare(open, 1_000_000, 'b', 'bob')
  const large = { ...as('bob'), ...TUS }
  const attacks: (() => Promise<unknown>)[] = [
    () => request('GET', `/uploads/files/${long}`, { headers: as('bob') }),
    () => request('GET', '/uploads/operations?open', { headers: { ...as('bob'), X: 'x'.repeat(21_000) } }),
    () =>
      request('GET', '/uploads/operations?open', {
        headers: { ...as('bob'), X: 'x'.repeat(31_000), Y: 'y'.repeat(31_000) },
      }),
    () =>
      request('POST', '/uploads/files', {
        headers: { ...large, 'Upload-Length': '5', 'Upload-Metadata': noted(21_000) },
      }),
    () => patch(open, content(2_000_000), 'bob', 7),
    async () => {
      const line = await openLine(proxy.port)
      line.send(
        head('PATCH', `/uploads/files/${open}`, { ...large, 'Upload-Offset': '0', 'Content-Length': '900000' }) +
          'torn',
      )
      await later(20)
      line.reset()
    },
    async () => {
      const line = await openLine(proxy.port)
      line.send(head('GET', `/uploads/operations/${open}?wait=20`, as('bob')).repeat(30))
      await later(20)
      line.reset()
    },
  ]
  let attacked = 0
  const until = Date.now() + 6_000
  const attackers = attacks.map(async (ask) => {
    for (; Date.now() < until; attacked += 1) {
      await ask().catch(() => {})
      await later(20)
    }
  })
  const statuses: Record<number, number> = {}
  while (Date.now() < until) {
    const id = newId()
    for (const answer of [
      await declare(id, 5),
      await patch(id, content(5)),
      await request('GET', `/uploads/operations/${id}`),
    ]) {
      statuses[answer.status] = (statuses[answer.status] ?? 0) + 1
      await answer.arrayBuffer()
    }
    await later(20)
  }
  await Promise.all(attackers)
  expect(attacked).toBeGreaterThan(60)
  expect(Object.keys(statuses).toSorted()).toEqual(['200', '201', '204'])
  process.stdout.write(`${attacked} attacks; the other user's answers by status: ${JSON.stringify(statuses)}\n`)
}

test('one user who asks for all that a node or nginx refuses takes it from nobody else', async () => {
  await attack(await start())
})

const { missing: noStore, config } = await s3Server()

vitest.skipIf('missing' in found || noStore !== null)(
  `the same with three nodes on PostgreSQL and S3 behind nginx${missing}${noStore === null ? '' : ` (${noStore})`}`,
  async () => {
    const postgres = await startPostgres()
    try {
      const shared = nodesOn(await postgres.database(), config)
      const nodes = await Promise.all(
        [1, 2, 3].map((n) => program.serve({ ...shared, LANDFALL_DATA_DIR: `${program.directory}/node-${n}` })),
      )
      await attack(await before(nodes.map(portOf)))
      for (const node of nodes) {
        const { status } = await fetch(new URL('/health/ready', node.address))
        expect([node.child.exitCode, status]).toEqual([null, 200])
      }
    } finally {
      await postgres.stop()
    }
  },
  120_000,
)

test('a path means the same to nginx and to the node', async () => {
  const { proxy } = await start()
  for (const path of [
    '/uploads/a%2fb/../../metrics',
    '/uploads/a%2Fb/../../health/ready',
    '/uploads/%2e%2e/metrics',
    '/uploads/..%2fmetrics',
    '/uploads/x/..%2f..%2fmetrics',
    '/uploads/%2e%2e%2fmetrics',
    '/uploads//../../metrics',
    '/uploads/;/../../metrics',
  ]) {
    const line = await openLine(proxy.port)
    line.send(head('GET', path, as('ann')))
    const answer = await line.answer()
    expect([path, answer.status]).toEqual([path, expect.toBeOneOf([400, 404])])
    expect(answer.body).not.toContain('landfall_')
    line.destroy()
  }
})

test('an answer that comes before the body was read arrives, and the next request too', async () => {
  const { request, declare, patch } = await start()
  const id = newId()
  await declare(id, 4_000_000)
  const body = content(4_000_000)
  for (let n = 0; n < 5; n++) {
    const early = await Promise.all([patch(id, body, 'ann', 9), patch(newId(), body)])
    expect(early.map(({ status }) => status)).toEqual([409, 404])
    await Promise.all(early.map((answer) => answer.arrayBuffer()))
    expect((await request('GET', `/uploads/operations/${id}`)).status).toBe(200)
  }
})

/** A line on which everything takes so long each way. */
async function distantLine(toPort: number, delayMs: number) {
  const server = createServer((near) => {
    const far = connect(toPort, '127.0.0.1')
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('data', (chunk) => setTimeout(() => to.write(chunk), delayMs))
      from.on('close', () => setTimeout(() => to.destroy(), delayMs))
      from.on('error', () => {})
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, close: () => server.close() }
}

test('by HTTP/2 a distant client is not held to a few kilobytes for each round trip', async () => {
  const { proxy, declare, tagOf } = await start()
  const line = await distantLine(proxy.http2Port, 30)
  const id = newId()
  const bytes = content(4 * 1024 * 1024)
  await declare(id, bytes.length)
  const ownerTag = await tagOf()
  const session = connectHttp2(`http://127.0.0.1:${line.port}`)
  const from = performance.now()
  const stream = session.request({
    ':method': 'PATCH',
    ':path': `/uploads/files/${id}`,
    authorization: as('ann').Authorization,
    'landfall-version': '1',
    'landfall-owner': ownerTag,
    'tus-resumable': '1.0.0',
    'upload-offset': '0',
    'content-type': 'application/offset+octet-stream',
  })
  stream.end(bytes)
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
  const tookMs = performance.now() - from
  expect([headers[':status'], headers['upload-offset']]).toEqual([204, String(bytes.length)])
  process.stdout.write(`4 MiB by HTTP/2 over a line of 60 ms: ${tookMs.toFixed(0)} ms\n`)
  expect(tookMs).toBeLessThan(2_000)
  session.destroy()
  line.close()
})
