/** Runs `landfall forget` as an operator does: the built program, with a running server and without one. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { expect, test, vi } from 'vitest'
import { content, eventually, newId } from './harness.js'
import { useProgram } from './program.js'

// Each command is a process of its own, which takes time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })
const program = useProgram()
const { start, serve } = program
const data = (): string => join(program.directory, 'data')
const landfall = (...args: string[]) => start([...args, '--data-dir', data()]).exited

const SECRET = 'Zaphod-Beeblebrox'
const OWNER = `owner-${SECRET}`
const headers = { 'X-Owner': OWNER, 'Content-Type': 'application/json', 'Landfall-Version': '1' }

type Server = Awaited<ReturnType<typeof serve>>

async function upload(server: Server, sent: number): Promise<string> {
  const id = newId()
  const body = JSON.stringify({
    file: { name: `photo of ${SECRET}`, size: 5, type: '' },
    metadata: { note: `of ${SECRET}` },
  })
  expect((await server.request('PUT', `/operations/${id}`, { headers, body })).status).toBe(201)
  if (sent === 0) return id
  const patched = await server.request('PATCH', `/files/${id}`, {
    headers: {
      ...headers,
      'Content-Type': 'application/offset+octet-stream',
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
    },
    body: content(5).subarray(0, sent),
  })
  expect(patched.status).toBe(204)
  return id
}

const stored = (): string[] =>
  readdirSync(join(data(), 'blobs/blobs'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)

/** The bytes of the database file and its write-ahead log, after deleted space has been released. */
function databaseBytes(): Buffer {
  const db = new Database(join(data(), 'landfall.db'), { timeout: 5_000 })
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.exec('VACUUM')
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.close()
  return readFileSync(join(data(), 'landfall.db'))
}

test('forget says what an owner has, and with --yes erases it while a server runs', async () => {
  const server = await serve({ LANDFALL_LOG_LEVEL: 'debug', LANDFALL_COMPLETER_INTERVAL_MS: '100' })
  const [whole, open] = [await upload(server, 5), await upload(server, 2)]
  const said = await landfall('forget', '--owner', OWNER)
  expect([said.code, said.err]).toEqual([0, ''])
  expect(said.out).toBe(
    'operations    2\nof them open  1\nreferences    1\nstored        5 B\nuse --yes to erase all of it\n',
  )
  expect((await server.request('GET', `/operations/${whole}`, { headers })).status).toBe(200)
  expect(databaseBytes().includes(SECRET)).toBe(true)

  const erased = await landfall('forget', '--owner', OWNER, '--yes', '--json')
  expect([erased.code, JSON.parse(erased.out)]).toEqual([
    0,
    { applied: true, operations: 2, openOperations: 1, references: 1, bytes: 5 },
  ])
  await eventually(
    async () => stored(),
    (files) => files.length === 0,
    20_000,
  )
  for (const [id, code] of [
    [whole, 'removed'],
    [open, 'cancelled'],
  ] as const) {
    const answer = await server.request('GET', `/operations/${id}`, { headers })
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([410, code])
  }
  expect(databaseBytes().includes(SECRET)).toBe(false)
  expect(server.output.err).not.toContain(SECRET)
  expect((await landfall('forget', '--owner', OWNER)).out).toContain('operations    0\n')
  // The owner may use the server again.
  await upload(server, 5)
})

test('without a server forget erases the rows, and the bytes are removed when a server runs', async () => {
  const server = await serve()
  const id = await upload(server, 5)
  server.child.kill('SIGTERM')
  await server.exited
  const erased = await landfall('forget', '--owner', OWNER, '--yes')
  expect([erased.code, erased.out.trimEnd().split('\n').at(-1)]).toEqual([
    0,
    'erased; the bytes are removed when a server runs',
  ])
  expect(databaseBytes().includes(SECRET)).toBe(false)
  const again = await serve({ LANDFALL_COMPLETER_INTERVAL_MS: '100' })
  await eventually(
    async () => stored(),
    (files) => files.length === 0,
    20_000,
  )
  expect((await again.request('GET', `/operations/${id}`, { headers })).status).toBe(410)
})

test('an owner must be named', async () => {
  const said = await landfall('forget')
  expect([said.code, said.err]).toEqual([2, "error: required option '--owner <owner>' not specified\n"])
})
