/** The nginx configuration that is shipped, before a real server: what a proxy can spoil, and this one does not. */
import { afterEach, expect, test as vitest } from 'vitest'
import { content, digestOf, eventually, newId } from './harness.js'
import { findProgram } from './debian.js'
import { freePort, startNginx } from './nginx.js'
import { ownerTags } from './owner-tags.js'
import { useProgram } from './program.js'
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

async function start() {
  if ('missing' in found) throw new Error(found.missing)
  const server = await program.serve({ LANDFALL_METRICS_PATH: '/metrics' })
  const proxy = await startNginx(found.path, program.directory, [
    // One of two nodes is not there.
    await freePort(),
    Number(new URL(server.address).port),
  ])
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
  const declare = (id: string, size: number) =>
    request('PUT', `/uploads/operations/${id}`, { body: JSON.stringify({ file: { name: 'a', size, type: '' } }) })
  return { ...server, proxy, tagOf: () => tagOf(as('ann').Authorization), request, declare }
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
