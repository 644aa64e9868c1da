/** A disk that is full, with the database on it: uploads wait, and whatever frees room still works. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, open, readdir, rm, statfs, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Operation, Problem } from '@landfall/shared'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { createRoom } from '../src/blobs/file/room.js'
import { content, eventually, later, newId } from './harness.js'
import { temporaryDirectory } from './fixtures.js'
import { useProgram } from './program.js'

const execute = promisify(execFile)
const MIB = 1024 * 1024
const DISK_BYTES = 96 * MIB

/** Only root may mount a disk of its own that can be full. */
async function reasonAgainstDisks(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'only root may mount a tmpfs'
  const path = await mkdtemp(join(tmpdir(), 'landfall-disk-try-'))
  try {
    await execute('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'landfall-disk-try', path])
    await execute('umount', [path])
    return null
  } catch {
    return 'a tmpfs cannot be mounted here'
  } finally {
    await rm(path, { recursive: true, force: true })
  }
}
const reason = await reasonAgainstDisks()
if (reason !== null) process.stdout.write(`not tested here: a full disk (${reason})\n`)

const program = useProgram()
let disk = ''
beforeEach(async () => {
  if (reason !== null) return
  disk = join(await mkdtemp(join(tmpdir(), 'landfall-disk-')))
  await execute('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES},mode=755`, 'landfall-full-disk', disk])
})
afterEach(async () => {
  if (disk === '') return
  // Lazily: the server that is being killed has files open there.
  await execute('umount', ['-l', disk])
  await rm(disk, { recursive: true, force: true })
  disk = ''
})

const freeBytes = async (): Promise<number> => {
  const { bavail, bsize } = await statfs(disk)
  return bavail * bsize
}

/** What another program does to a disk. */
async function fillUp(): Promise<string> {
  const path = join(disk, 'of-another-program')
  const file = await open(path, 'w')
  try {
    for (const bytes of [MIB, 64 * 1024, 4096])
      for (;;) {
        const { bytesWritten } = await file.write(randomBytes(bytes))
        if (bytesWritten < bytes) break
      }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    await file.close()
  }
  return path
}

const until = (look: () => Promise<boolean>, withinMs = 20_000): Promise<boolean> => eventually(look, Boolean, withinMs)

const serve = (env: Record<string, string> = {}) =>
  program.serve({ LANDFALL_DATA_DIR: join(disk, 'data'), LANDFALL_COMPLETER_INTERVAL_MS: '200', ...env })
type Server = Awaited<ReturnType<typeof serve>>

const readyOf = async ({ address }: Server) => {
  const answer = await fetch(new URL('/health/ready', address))
  return { status: answer.status, ...((await answer.json()) as { ready: boolean; failed: string[] }) }
}
/** null: a directory has just been removed by the server. */
async function blobsLeft(): Promise<string[] | null> {
  const entries = await readdir(join(disk, 'data/blobs/blobs'), { recursive: true, withFileTypes: true }).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    },
  )
  return entries === null ? null : entries.filter((entry) => entry.isFile()).map(({ name }) => name)
}
const nothingLeft = (): Promise<boolean> => until(async () => (await blobsLeft())?.length === 0)

/** Sends until it is refused; the last answer. */
async function sendUntilRefused({ declare, request }: Server, id: string): Promise<Response> {
  expect((await declare(id, 10 * DISK_BYTES)).status).toBe(201)
  for (;;) {
    const head = await request('HEAD', `/files/${id}`, { headers: { 'Tus-Resumable': '1.0.0' } })
    const answer = await request('PATCH', `/files/${id}`, {
      headers: {
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': head.headers.get('Upload-Offset') ?? '',
        'Content-Type': 'application/offset+octet-stream',
        // It is refused before its body was read, which ends the connection.
        Connection: 'close',
      },
      body: content(8 * MIB),
    })
    if (answer.status !== 204) return answer
  }
}

describe.skipIf(reason !== null)('one disk for the database and the bytes', () => {
  test('bytes are refused before the last of it is taken, and a cancellation frees it again', async () => {
    const server = await serve()
    const id = newId()
    const refused = await sendUntilRefused(server, id)
    expect(refused.status).toBe(507)
    expect(refused.headers.get('Retry-After')).toBe('30')
    expect(((await refused.json()) as Problem).type).toContain('storage-full')
    // 32 MiB are the least that is kept, and next to nothing of them was used for what is recorded.
    expect(await freeBytes()).toBeGreaterThan(30 * MIB)
    expect(await freeBytes()).toBeLessThan(34 * MIB)

    // A new upload would take from what is kept; those that are there are answered as ever.
    const another = await server.declare(newId(), 5)
    expect([another.status, ((await another.json()) as Problem).code]).toEqual([507, 'storage-full'])
    expect((await server.declare(id, 10 * DISK_BYTES)).status).toBe(200)
    await until(async () => (await readyOf(server)).status === 503)
    expect(await readyOf(server)).toEqual({ status: 503, ready: false, failed: ['space'] })
    const doctor = await program.start(['doctor', '--data-dir', join(disk, 'data')]).exited
    expect(doctor.code).toBe(1)
    expect(doctor.out).toMatch(/failed {3}space {7}\d+ MiB of 96 MiB free, and 32 MiB are kept free/)

    const cancelled = await server.request('DELETE', `/operations/${id}`)
    expect([cancelled.status, ((await cancelled.json()) as Operation).recoveryPoint]).toEqual([200, 'cancelled'])
    await until(async () => (await readyOf(server)).status === 200)
    await nothingLeft()
    const next = newId()
    expect((await server.declare(next, MIB)).status).toBe(201)
    expect((await server.patch(next, 0, content(MIB))).status).toBe(204)
  }, 120_000)

  test('an upload that expires frees it too', async () => {
    const server = await serve({ LANDFALL_EXPIRES_AFTER_MS: '6000' })
    const id = newId()
    expect((await sendUntilRefused(server, id)).status).toBe(507)
    await until(async () => {
      const operation = (await (await server.request('GET', `/operations/${id}`)).json()) as Operation
      return operation.recoveryPoint === 'expired'
    }, 30_000)
    await until(async () => (await readyOf(server)).status === 200)
    await nothingLeft()
  }, 120_000)

  test('what waited for room goes on where it was when there is some', async () => {
    const server = await serve()
    const path = join(disk, 'of-another-program')
    await writeFile(path, randomBytes(66 * MIB))
    const id = newId()
    const size = 20 * MIB
    const bytes = content(size)
    // The server looks once a second.
    await later(1_500)
    expect((await server.declare(id, size)).status).toBe(507)
    await unlink(path)
    await later(150)
    expect((await server.declare(id, size)).status).toBe(201)
    expect((await server.patch(id, 0, bytes.subarray(0, MIB))).status).toBe(204)
    await writeFile(path, randomBytes(66 * MIB))
    await later(1_500)
    // It is waited for, with the bytes on the line.
    setTimeout(() => void unlink(path), 2_000)
    expect((await server.patch(id, MIB, bytes.subarray(MIB))).status).toBe(204)
    await until(async () => {
      const operation = (await (await server.request('GET', `/operations/${id}`)).json()) as Operation
      return operation.reference?.size === size
    })
  }, 120_000)

  test('a disk that another program has filled to its last byte is emptied by a cancellation', async () => {
    const server = await serve()
    const ids = [newId(), newId(), newId()]
    for (const id of ids) {
      expect((await server.declare(id, 10 * MIB)).status).toBe(201)
      expect((await server.patch(id, 0, content(5 * MIB))).status).toBe(204)
    }
    const ballast = join(disk, 'data/blobs')
    await until(async () => (await readdir(ballast)).includes('ballast'))
    await fillUp()
    await until(async () => !(await readdir(ballast)).includes('ballast'))
    expect(await readyOf(server)).toMatchObject({ status: 503, failed: ['space'] })
    for (const id of ids) {
      const answer = await server.request('DELETE', `/operations/${id}`)
      expect([answer.status, ((await answer.json()) as Operation).recoveryPoint]).toEqual([200, 'cancelled'])
    }
    await nothingLeft()
    expect(await freeBytes()).toBeGreaterThan(15 * MIB)
  }, 120_000)

  test('nobody is refused for what was: room that is there again is seen by who asks next', async () => {
    const room = createRoom(disk, 32 * MIB, noStore)
    await room.open()
    const filler = await fillUp()
    await eventually(
      () => room.now(),
      (found) => found?.isFull === true,
    )
    await unlink(filler)
    expect(await room.now()).toMatchObject({ isFull: false })
    await room.close()
  })

  test('uploads that run at the same time cannot take the same room twice', async () => {
    await mkdir(join(disk, 'room'))
    const reserveBytes = (await freeBytes()) - 4 * MIB
    const room = createRoom(join(disk, 'room'), reserveBytes, noStore)
    await room.open()
    let granted = 0
    const writes = Array.from({ length: 40 }, () =>
      room.within(512 * 1024, async () => {
        granted += 1
        // Slower than the next look, which does not see what is not written yet.
        await later(2_500)
      }),
    )
    const ended = await Promise.allSettled(writes)
    expect(granted).toBe(8)
    expect(ended.filter(({ status }) => status === 'rejected')).toHaveLength(32)
    expect(ended.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'storage-full' } })
    // None of them was written.
    await later(1_200)
    await room.within(512 * 1024, async () => {})
    await room.close()
  }, 30_000)
})

/** Without a store no ballast is made, which would take the room that these tests count. */
const noStore = (): Promise<void> => Promise.reject(new Error('there is no store here'))

test('a reserve that the disk does not have refuses bytes before a file is made', async () => {
  const directory = await temporaryDirectory()
  const store = fileBlobs({ directory: directory.path, reserveBytes: Number.MAX_SAFE_INTEGER, patienceMs: 100 })
  try {
    await store.open('ledger-1', 'new')
    expect(await store.room?.()).toMatchObject({ isFull: true, reserveBytes: Number.MAX_SAFE_INTEGER })
    const appended = store.append(
      { key: '0192f0c1a2b3'.padEnd(32, '0'), size: 10, state: null },
      {
        offset: 0,
        source: new Blob([content(10)]).stream(),
        signal: new AbortController().signal,
        acknowledge: async () => true,
      },
    )
    await expect(appended).rejects.toMatchObject({ code: 'storage-full' })
    expect(await readdir(directory.path)).not.toContain('blobs')
  } finally {
    await store.close()
    await directory.remove()
  }
})

test.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
  'a reserve of %s bytes is refused at once',
  (reserveBytes) => {
    expect(() => fileBlobs({ directory: 'never-made', reserveBytes })).toThrow(
      expect.objectContaining({ code: 'setup' }),
    )
  },
)
