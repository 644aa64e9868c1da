/** The packed server on each version of Node that its users run: what is built here must not rest on this one. */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/landfall.js'
import { type NodeBinary, nodeOf } from '../../ground/node-versions.js'
import { install, link, pack, PACKAGES } from '../../ground/packed.js'
import { startProcess } from '../../ground/processes.js'

const MAJORS = [20, 22, 24]

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let cli: string
const binaries = new Map<number, NodeBinary>()

beforeAll(async () => {
  directory = await temporaryDirectory()
  const project = join(directory.path, 'project')
  const packed = async (): Promise<void> => {
    const tarballs: string[] = []
    for (const name of PACKAGES) tarballs.push(await pack(repository, name, join(directory.path, 'tarballs')))
    await install(repository, project, tarballs)
    // What an application has beside it.
    await link(repository, project, ['hono', 'drizzle-orm', '@libsql/client'])
    await writeFile(join(project, 'package.json'), '{ "type": "module" }')
    cli = join(project, 'node_modules/@landfall/server/dist/cli.js')
  }
  const installed = MAJORS.map(async (major) => {
    binaries.set(major, await nodeOf(major, join(directory.path, `node-${major}`)))
  })
  await Promise.all([packed(), ...installed])
})
afterAll(() => directory.remove())

const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test.for(MAJORS)('Node %i takes an upload across a restart, and serves it after another', async (major, { skip }) => {
  const binary = binaries.get(major)
  if (binary?.outcome !== 'found') return skip(binary?.why)
  expect(binary.version).toMatch(new RegExp(`^v${major}\\.`))
  const server = await startProcess({
    name: `landfall on Node ${binary.version}`,
    command: binary.path,
    args: [cli, 'serve'],
    env: {
      LANDFALL_PORT: '0',
      LANDFALL_DATA_DIR: join(directory.path, `data-${major}`),
      LANDFALL_OWNER_HEADER: 'X-Owner',
    },
    ready: /landfall listens on (\S+)\n/,
  })
  const own: Record<string, string> = { 'X-Owner': 'ann', 'Landfall-Version': '1' }
  const request = (
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: Uint8Array<ArrayBuffer> | string,
  ) =>
    fetch(`${server.ready[1] ?? ''}${path}`, {
      method,
      headers: { ...own, ...headers },
      ...(body === undefined ? {} : { body }),
    })
  const bytes = new Uint8Array(randomBytes(3_000_000))
  const half = 1_234_567
  const id = randomUUID()
  const declare = async () => {
    const facts = { file: { name: 'a.bin', size: bytes.length, type: 'application/octet-stream' } }
    const answer = await request(
      'PUT',
      `/operations/${id}`,
      { 'Content-Type': 'application/json' },
      JSON.stringify(facts),
    )
    return { status: answer.status, operation: (await answer.json()) as { offset: number; recoveryPoint: string } }
  }
  const patch = (offset: number, chunk: Uint8Array<ArrayBuffer>) =>
    request(
      'PATCH',
      `/files/${id}`,
      {
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': String(offset),
        'Content-Type': 'application/offset+octet-stream',
      },
      chunk,
    )
  try {
    own['Landfall-Owner'] = (await request('GET', '/operations?open')).headers.get('Landfall-Owner') ?? ''
    expect(await declare()).toMatchObject({ status: 201, operation: { offset: 0, recoveryPoint: 'declared' } })
    expect((await patch(0, bytes.slice(0, half))).headers.get('Upload-Offset')).toBe(String(half))
    await server.restart()
    expect(await declare()).toMatchObject({ status: 200, operation: { offset: half } })
    expect((await patch(half, bytes.slice(half))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
    await server.restart()
    expect((await declare()).operation.recoveryPoint).toMatch(/^(referenced|completed)$/)
    const stored = await request('GET', `/files/${id}`)
    expect(stored.status).toBe(200)
    expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
    expect((await request('GET', `/files/${id}`, { Range: 'bytes=-10' })).status).toBe(206)
  } finally {
    expect(await server.kill('SIGTERM')).toEqual({ code: 0, signal: null })
  }
})
