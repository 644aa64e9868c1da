import { execFile } from 'node:child_process'
import { cp, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/landfall.js'
import { contents, install, link, pack, type PackageName, PACKAGES } from '../../ground/packed.js'

const execute = promisify(execFile)

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let project: string
const tarballs = new Map<PackageName, string>()

beforeAll(async () => {
  directory = await temporaryDirectory()
  for (const name of PACKAGES) tarballs.set(name, await pack(repository, name, join(directory.path, 'tarballs')))
  project = join(directory.path, 'project')
  await cp(join(import.meta.dirname, 'fixtures/project'), project, { recursive: true })
  await install(repository, project, [...tarballs.values()])
}, 120_000)
afterAll(() => directory.remove())

const tarball = (name: PackageName): string => tarballs.get(name) ?? ''

async function readManifest(name: PackageName): Promise<Record<string, unknown>> {
  const manifest: unknown = JSON.parse(await readFile(join(repository, name, 'package.json'), 'utf8'))
  return Object.fromEntries(Object.entries(manifest ?? {}))
}

describe.each(PACKAGES)('the tarball of %s', (name) => {
  test('is what publint, strict, has nothing to say about', async () => {
    const bytes = await readFile(tarball(name))
    const { messages } = await publint({ pack: { tarball: new Uint8Array(bytes).buffer }, strict: true })
    const manifest = await readManifest(name)
    expect(messages.map((message) => formatMessage(message, manifest, { color: false }))).toEqual([])
  })

  test('has types that resolve for every consumer of ESM', async () => {
    const attw = join(repository, 'node_modules/.bin/attw')
    const args = [tarball(name), '--profile', 'esm-only', '--no-definitely-typed', '--format', 'ascii', '--no-color']
    // Its exit status is 1 when there is a problem; what it prints is then in the error.
    await expect(execute(attw, args)).resolves.toMatchObject({ stderr: '' })
  })

  test('holds the build and the licence, and nothing of how it was made', async () => {
    const files = await contents(tarball(name))
    expect(files).toEqual(expect.arrayContaining(['package.json', 'LICENSE', 'dist/index.js', 'dist/index.d.ts']))
    expect(
      files.filter((path) =>
        /tsbuildinfo|(^|\/)(test|src|node_modules)\/|\.tgz$|\.tsx?$/.test(path.replace(/\.d\.ts$/, '')),
      ),
    ).toEqual([])
  })
})

describe('installed from the tarballs', () => {
  const node = async (script: string): Promise<string> =>
    (await execute(process.execPath, ['--input-type=module', '-e', script], { cwd: project })).stdout

  test('the client imports under server rendering, and makes an uploader without touching a browser global', async () => {
    const script = `
      for (const name of ['window', 'document', 'navigator', 'indexedDB', 'localStorage', 'location', 'self', 'Worker', 'BroadcastChannel', 'XMLHttpRequest', 'fetch'])
        Object.defineProperty(globalThis, name, { configurable: true, get() { throw new Error('touched ' + name) } })
      const { createUploader } = await import('@landfall/client')
      const uploader = createUploader({ endpoint: '/uploads', scope: 'user' })
      const off = uploader.subscribe(() => {})
      console.log(JSON.stringify(uploader.snapshot()), uploader.snapshot() === uploader.snapshot())
      off()`
    expect(await node(script)).toBe('{"uploads":[],"recovered":false,"warnings":[]} true\n')
  })

  test('the server and the words of the wire import', async () => {
    const script = `
      const { createUploads, kind, fileBlobs, sqliteLedger, serializedLibsql } = await import('@landfall/server')
      const { POINTS } = await import('@landfall/shared')
      console.log([createUploads, kind, fileBlobs, sqliteLedger, serializedLibsql].map((it) => typeof it).join(), POINTS.length)`
    expect(await node(script)).toBe('function,function,function,function,function 9\n')
  })

  test('every entry point of the server imports, the one for S3 once its packages are installed', async () => {
    const manifest = await readManifest('server')
    const entries = Object.keys(Object(manifest['exports'])).map((entry) => `@landfall/server${entry.slice(1)}`)
    expect(entries.length).toBeGreaterThan(1)
    const imports = (names: readonly string[]): Promise<string> =>
      node(`for (const entry of ${JSON.stringify(names)}) console.log(Object.keys(await import(entry)).length > 0)`)
    const withoutPeers = entries.filter((entry) => entry !== '@landfall/server/s3')
    expect(withoutPeers).toHaveLength(entries.length - 1)
    expect(await imports(withoutPeers)).toBe('true\n'.repeat(withoutPeers.length))
    await expect(imports(entries)).rejects.toThrow("Cannot find package '@tus/s3-store'")
    await link(repository, project, Object.keys(Object(manifest['peerDependencies'])))
    expect(await imports(entries)).toBe('true\n'.repeat(entries.length))
  })

  test('the landfall command runs, and refuses bad settings by name', async () => {
    const bin = join(project, 'node_modules/@landfall/server/dist/cli.js')
    const { stdout } = await execute(bin, ['serve', '--help'])
    expect(stdout).toContain('Usage: landfall serve')
    const env = { ...process.env, LANDFALL_PORT: 'abc', LANDFALL_OWNER_HEADER: 'x-owner' }
    await expect(execute(bin, ['serve'], { env })).rejects.toMatchObject({
      stderr: expect.stringContaining('LANDFALL_PORT'),
    })
  })

  test('a strict TypeScript project compiles with them, typed from the server to the client', async () => {
    await symlink(join(repository, 'node_modules/@types'), join(project, 'node_modules/@types'))
    const tsc = join(repository, 'node_modules/.bin/tsc')
    const output = await execute(tsc, ['-p', project]).then(
      () => '',
      (error: Error & { stdout?: string }) => error.stdout ?? error.message,
    )
    expect(output).toBe('')
  })
})

test('the lock file names every optional package, so that npm ci works on every platform', async () => {
  interface Entry {
    version?: string
    optionalDependencies?: Record<string, string>
  }
  const lock: { packages: Record<string, Entry> } = JSON.parse(
    await readFile(join(repository, 'package-lock.json'), 'utf8'),
  )
  /** As Node resolves: from the package's own folder upwards. */
  function resolve(from: string, name: string): Entry | undefined {
    for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
      const found = lock.packages[folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`]
      if (found !== undefined || folder === '') return found
      if (!folder.includes('/node_modules/')) folder = '/node_modules/'
    }
  }
  const missing = Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.entries(optionalDependencies)
      .filter(([name, range]) => {
        const found = resolve(path, name)
        return found === undefined || (/^\d+\.\d+\.\d+$/.test(range) && found.version !== range)
      })
      .map(([name, range]) => `${name}@${range} of ${path}`),
  )
  expect(missing).toEqual([])
})
