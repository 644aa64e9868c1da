/** Other users of the machine cannot read the server's data and cannot prevent it from starting. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { content, newId } from './harness.js'
import { useProgram } from './program.js'

const execute = promisify(execFile)
const program = useProgram()
let before: number
beforeEach(() => {
  before = process.umask(0o022)
})
afterEach(() => {
  process.umask(before)
})

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8)

/** The entries of a directory and the directory itself, by their modes. */
async function modesIn(root: string): Promise<{ directories: Set<string>; files: Set<string>; names: string[] }> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  const directories = new Set([await modeOf(root)])
  const files = new Set<string>()
  for (const entry of entries)
    (entry.isDirectory() ? directories : files).add(await modeOf(join(entry.parentPath, entry.name)))
  return { directories, files, names: entries.map(({ name }) => name) }
}

test('everything that a server makes is accessible to its own user only', async () => {
  const server = await program.serve()
  const [whole, part] = [newId(), newId()]
  await server.declare(whole, 1_000)
  expect((await server.patch(whole, 0, content(1_000))).status).toBe(204)
  await server.declare(part, 1_000_000)
  expect((await server.patch(part, 0, content(1_000))).status).toBe(204)
  const { directories, files, names } = await modesIn(join(program.directory, 'data'))
  expect(names).toEqual(
    expect.arrayContaining([
      'landfall.db',
      'landfall.db-wal',
      'landfall.db-shm',
      'landfall.sock',
      'landfall.lock',
      'store.json',
    ]),
  )
  expect([[...directories], [...files]]).toEqual([['700'], ['600']])
})

test('a data directory that everybody can read is made private', async () => {
  const data = join(program.directory, 'data')
  const first = await program.serve()
  first.child.kill('SIGTERM')
  await first.exited
  for (const path of [data, join(data, 'blobs')]) await chmod(path, 0o755)
  for (const path of ['landfall.db', 'blobs/landfall.lock']) await chmod(join(data, path), 0o644)
  await program.serve()
  for (const path of [data, join(data, 'blobs')]) expect(await modeOf(path)).toBe('700')
  for (const path of ['landfall.db', 'landfall.db-wal', 'blobs/landfall.lock'])
    expect(await modeOf(join(data, path))).toBe('600')
})

test('a directory with other files keeps its mode, and what the server makes in it is private', async () => {
  const directory = join(program.directory, 'shared')
  await mkdir(join(directory, 'blobs', '0192f0'), { recursive: true })
  await writeFile(join(directory, 'of-somebody-else'), '')
  const store = fileBlobs({ directory })
  await store.open('ledger-1', 'new')
  await store.close()
  expect(await modeOf(directory)).toBe('755')
  expect(await modeOf(join(directory, 'blobs'))).toBe('700')
  for (const name of ['store.json', 'landfall.lock']) expect(await modeOf(join(directory, name))).toBe('600')
  const sticky = join(program.directory, 'sticky')
  await mkdir(sticky)
  await chmod(sticky, 0o1777)
  const another = fileBlobs({ directory: sticky })
  await another.open('ledger-1', 'new')
  await another.close()
  expect(await modeOf(sticky)).toBe('777')
})

test('permissions that were given to a group are kept, because they were intended', async () => {
  const directory = join(program.directory, 'blobs')
  await mkdir(directory)
  await chmod(directory, 0o750)
  const store = fileBlobs({ directory })
  await store.open('ledger-1', 'new')
  await store.close()
  expect(await modeOf(directory)).toBe('750')
})

const reason = process.getuid?.() === 0 ? null : 'only root may start a program as another user'
if (reason !== null) process.stdout.write(`not tested here: another user of the machine (${reason})\n`)

/** Takes a shared lock on a file and says so; or says why it cannot. */
const LOCKER = `
import fcntl, sys, time
try:
    file = open(sys.argv[1], 'rb')
    fcntl.lockf(file, fcntl.LOCK_SH)
    print('locked', flush=True)
    time.sleep(60)
except OSError as error:
    print(error.strerror, flush=True)
`

test.skipIf(reason !== null)('another user can neither read the data nor prevent a server from starting', async () => {
  // This is not below the directory of the tests, which other users cannot read in any case.
  const open = await mkdtemp(join(tmpdir(), 'landfall-open-'))
  const data = join(open, 'data')
  try {
    await chmod(open, 0o755)
    const locker = join(open, 'locker.py')
    await writeFile(locker, LOCKER)
    await mkdir(join(data, 'blobs'), { recursive: true })
    await writeFile(join(data, 'blobs', 'landfall.lock'), '')
    for (const path of [data, join(data, 'blobs')]) await chmod(path, 0o755)
    const first = await program.serve({ LANDFALL_DATA_DIR: data })
    first.child.kill('SIGTERM')
    await first.exited

    const nobody = { uid: 65_534, gid: 65_534 }
    const lock = spawn('python3', [locker, join(data, 'blobs', 'landfall.lock')], nobody)
    const [said] = (await once(lock.stdout, 'data')) as [Buffer]
    expect(said.toString().trim()).toBe('Permission denied')
    await expect(execute('cat', [join(data, 'landfall.db')], nobody)).rejects.toThrow('Permission denied')
    await program.serve({ LANDFALL_DATA_DIR: data })
  } finally {
    await rm(open, { recursive: true, force: true })
  }
})
