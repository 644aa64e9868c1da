/** Commands beside a process that has the directory: a server, or an application that embeds Landfall. */
import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import type { Operator } from '../src/operate/operator.js'
import { operatorApp } from '../src/operate/operator-app.js'
import { connectOperator } from '../src/operate/operator-client.js'
import { serveOperator } from '../src/operate/socket.js'
import { newId, startServer, type TestServer } from './harness.js'
import { useProgram } from './program.js'

const KINDS = { photo: kind({ onReference: async () => null }) }
const program = useProgram()
let server: TestServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})
const embed = async (operatorSocket: boolean) => (server = await startServer(KINDS, { operatorSocket }))

async function landfall(...args: string[]) {
  const data = ['--data-dir', server!.directory, '--database-url', `file:${join(server!.directory, 'app.db')}`]
  return program.start([...args, ...data]).exited
}

const declare = (id: string) =>
  server!.request('PUT', `/operations/${id}`, {
    headers: { 'Landfall-Version': '1' },
    body: JSON.stringify({ file: { name: 'a.jpg', size: 5, type: 'image/jpeg' } }),
  })

test('commands find the application that has the directory, and use its kinds', async () => {
  await embed(true)
  const path = join(server!.directory, 'blobs', 'landfall.sock')
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  const id = newId()
  expect((await declare(id)).status).toBe(201)
  const listed = await landfall('operations', 'list', '--json')
  expect(listed).toMatchObject({ code: 0, err: '' })
  expect(JSON.parse(listed.out)).toMatchObject({ id, kind: 'photo' })
  expect(await landfall('operations', 'cancel', id)).toMatchObject({ code: 0, out: 'cancelled\n' })
  expect((await landfall('reconcile')).code).toBe(0)
  await server!.close()
  expect(existsSync(path)).toBe(false)
})

test('where it opens no socket, the command says who is in the way and what to do', async () => {
  await embed(false)
  const { code, err } = await landfall('operations', 'list')
  expect(code).toBe(2)
  expect(err).toContain('another process uses this directory of blobs')
  expect(err).toContain('an application that embeds Landfall')
  expect(err).toContain('stop it first')
})

test('a second server on one data directory leaves the socket to the first', async () => {
  await embed(false)
  const { operator } = server!.uploads
  const first = await serveOperator(operator, server!.directory)
  const second = await serveOperator(operator, server!.directory)
  expect(second).toMatchObject({ outcome: 'none', why: expect.stringContaining('another server') as string })
  expect((await connectOperator(server!.directory)).outcome).toBe('connected')
  if (first.outcome === 'served') await first.close()
  expect((await connectOperator(server!.directory)).outcome).toBe('none')
  const third = await serveOperator(operator, server!.directory)
  expect(third.outcome).toBe('served')
  if (third.outcome === 'served') await third.close()
})

test('a long list comes in pages, and each operation once', async () => {
  await embed(true)
  const ids = Array.from({ length: 620 }, newId)
  for (const id of ids) expect((await declare(id)).status).toBe(201)
  const { code, out, err } = await landfall('operations', 'list', '--json', '--limit', '999999')
  expect([code, err]).toEqual([0, ''])
  const listed = out
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { id: string }).id)
  expect(listed).toHaveLength(ids.length)
  expect(new Set(listed)).toEqual(new Set(ids))
  const table = await landfall('operations', 'list', '--limit', '610')
  const lines = table.out.trim().split('\n')
  expect(lines).toHaveLength(611)
  expect(lines.filter((line) => line.startsWith('id '))).toHaveLength(1)
  expect(table.err).toMatch(/^there may be more: --after [0-9a-f]{32}\n$/)
  // One call answers at most so many, whatever is asked of it.
  expect(await server!.uploads.operator.list({ limit: 5_000_000 })).toHaveLength(ids.length)
}, 60_000)

test('what is no call of an operator is refused, and changes nothing', async () => {
  const calls: string[] = []
  const noted = (name: string) => async () => void calls.push(name)
  const app = operatorApp(new Proxy({} as Operator, { get: (_nothing, name) => noted(String(name)) }))
  const post = async (path: string, body: string) => (await app.request(path, { method: 'POST', body })).status
  expect(await post('/cancel', '{"owner":"alice"}')).toBe(400)
  expect(await post('/forgetOwner', '{"owner":7,"apply":true}')).toBe(400)
  expect(await post('/reconcile', '{"apply":"yes"}')).toBe(400)
  expect(await post('/reconcile', '{"aply":true}')).toBe(400)
  expect(await post('/cancel', 'no JSON')).toBe(400)
  expect(await post('/explode', '{}')).toBe(404)
  expect(await post('/show', JSON.stringify({ owner: 'x'.repeat(70_000), id: newId() }))).toBe(413)
  expect(calls).toEqual([])
  expect(await post('/cancel', JSON.stringify({ owner: 'alice', id: newId() }))).toBe(200)
  expect(calls).toEqual(['cancel'])
})
