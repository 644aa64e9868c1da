import { execFile } from 'node:child_process'
import { cp, readFile, rm, symlink } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import { contents, install, link, pack, type PackageName, PACKAGES } from '../../ground/packed.js'
import { UPLOAD_OWNER_HEADER, uploadAcrossRestarts } from '../../ground/one-upload.js'
import { startProcess } from '../../ground/processes.js'

const execute = promisify(execFile)

/** Some 80 packages, or their declarations through a compiler, on a machine that does other things. */
const INSTALL_MS = 300_000

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

async function readManifest(name: PackageName | 'server/deploy'): Promise<Record<string, unknown>> {
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
        // The sources are there for the source maps, and for "go to definition" in an editor.
        /tsbuildinfo|(^|\/)(test|node_modules)\/|\.tgz$|^(?!src\/).*\.tsx?$/.test(path.replace(/\.d\.ts$/, '')),
      ),
    ).toEqual([])
  })

  test('holds the source of each source map, or the map holds it itself', async () => {
    const files = new Set(await contents(tarball(name)))
    const maps = [...files].filter((path) => path.endsWith('.map'))
    expect(maps).toEqual(expect.arrayContaining(['dist/index.d.ts.map', 'dist/index.js.map']))
    const absent: string[] = []
    for (const path of maps) {
      const text = await readFile(join(project, 'node_modules/@landfall', name, path), 'utf8')
      const map: { sources: string[]; sourcesContent?: (string | null)[] } = JSON.parse(text)
      expect(map.sources.length, path).toBeGreaterThan(0)
      map.sources.forEach((source, at) => {
        if (typeof map.sourcesContent?.[at] !== 'string' && !files.has(posix.join(posix.dirname(path), source)))
          absent.push(`${path}: ${source}`)
      })
    }
    // Also what a module leaves in dist when its source is moved: then remove dist, and build again.
    expect(absent).toEqual([])
  })

  test('says where it comes from, and is published for everybody', async () => {
    const url = 'https://github.com/landfall-uploads/landfall'
    expect(await readManifest(name)).toMatchObject({
      license: 'MIT',
      repository: { type: 'git', url: `git+${url}.git`, directory: name },
      homepage: `${url}/tree/main/${name}#readme`,
      bugs: { url: `${url}/issues` },
      publishConfig: { access: 'public', provenance: true },
      engines: { node: '>=20.19' },
      sideEffects: false,
      keywords: expect.arrayContaining(['upload', 'tus']),
    })
  })
})

test('the client carries the licence of each package whose code is in its files', async () => {
  const folder = join(project, 'node_modules/@landfall/client')
  const licences = await readFile(join(folder, 'THIRD-PARTY-LICENSES'), 'utf8')
  const { sources }: { sources: string[] } = JSON.parse(await readFile(join(folder, 'dist/index.js.map'), 'utf8'))
  const bundled = new Set(sources.flatMap((source) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(source)?.[1] ?? []))
  expect([...bundled]).toEqual(expect.arrayContaining(['tus-js-client', '@stablelib/sha256']))
  for (const name of bundled) {
    const text = await readFile(join(repository, 'node_modules', name, 'LICENSE'), 'utf8')
    expect(licences).toMatch(new RegExp(`^${name} \\d+\\.`, 'm'))
    expect(licences).toContain(text.trim())
  }
  // What is imported, and not bundled, comes with its own.
  const { dependencies } = await readManifest('client')
  for (const name of Object.keys(Object(dependencies))) expect([...bundled]).not.toContain(name)
})

test('the image installs every package that a setting of landfall serve can need', async () => {
  const { peerDependencies } = await readManifest('server')
  const { dependencies } = await readManifest('server/deploy')
  // postgres.js is for applications that have it already; landfall serve uses pg.
  const peers = Object.keys(Object(peerDependencies)).filter((name) => name !== 'postgres')
  expect(Object.keys(Object(dependencies)).toSorted()).toEqual(['@landfall/server', ...peers].toSorted())
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

  test('the server and the words of the wire import beside hono and drizzle-orm, without any driver', async () => {
    await link(repository, project, ['hono', 'drizzle-orm'])
    const script = `
      const { createUploads, kind, fileBlobs, sqliteLedger, serializedLibsql } = await import('@landfall/server')
      const { POINTS } = await import('@landfall/shared')
      console.log([createUploads, kind, fileBlobs, sqliteLedger, serializedLibsql].map((it) => typeof it).join(), POINTS.length)`
    expect(await node(script)).toBe('function,function,function,function,function 9\n')
  })

  const serve = async (env: Readonly<Record<string, string>>): Promise<string> => {
    const bin = join(project, 'node_modules/@landfall/server/dist/cli.js')
    const data = join(directory.path, 'data-without-drivers')
    const { stderr } = (await execute(process.execPath, [bin, 'serve'], {
      env: { ...process.env, LANDFALL_PORT: '0', LANDFALL_OWNER_HEADER: 'x-owner', LANDFALL_DATA_DIR: data, ...env },
    }).then(
      () => ({ stderr: 'it runs' }),
      (error: unknown) => error,
    )) as { stderr: string }
    return stderr
  }
  /** Nothing listens there. */
  const AWAY = 'postgres://127.0.0.1:9/landfall'
  const BUCKET = { LANDFALL_S3_BUCKET: 'bucket', LANDFALL_S3_ENDPOINT: 'http://127.0.0.1:9' }

  test('landfall serve says which driver is missing, and needs those only that its settings name', async () => {
    expect(await serve({})).toContain('Run: npm install @libsql/client')
    expect(await serve({ LANDFALL_DATABASE_URL: AWAY })).toContain('Run: npm install pg')
    await link(repository, project, ['pg'])
    const away = await serve({ LANDFALL_DATABASE_URL: AWAY })
    expect(away).not.toContain('npm install')
    expect(away).toContain('database')
    expect(await serve({ LANDFALL_DATABASE_URL: AWAY, ...BUCKET })).toContain(
      'Run: npm install @tus/s3-store @aws-sdk/client-s3',
    )
    await rm(join(project, 'node_modules/pg'))
    await link(repository, project, ['@libsql/client'])
    expect(await serve({ LANDFALL_DATABASE_URL: AWAY })).toContain('Run: npm install pg')
    const server = await startProcess({
      name: 'landfall without pg',
      command: process.execPath,
      args: [join(project, 'node_modules/@landfall/server/dist/cli.js'), 'serve'],
      env: {
        LANDFALL_PORT: '0',
        LANDFALL_OWNER_HEADER: 'x-owner',
        LANDFALL_DATA_DIR: join(directory.path, 'data-without-pg'),
      },
      ready: /landfall listens on (\S+)\n/,
    })
    expect(await server.kill('SIGTERM')).toEqual({ code: 0, signal: null })
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

/** From a registry, as an application's own `npm install` does it. */
describe.each([
  ['oldest', (range: string) => /\d+\.\d+\.\d+/.exec(range)?.[0] ?? range],
  ['newest', (range: string) => range],
] as const)('beside the %s hono and drizzle-orm that are allowed', (end, versionIn) => {
  let application: string
  let missing: string | null = null

  beforeAll(async () => {
    application = join(directory.path, end)
    await cp(join(import.meta.dirname, 'fixtures/project'), application, { recursive: true })
    await rm(join(application, 'page'), { recursive: true })
    const { peerDependencies } = await readManifest('server')
    const ranges: Record<string, string> = Object(peerDependencies)
    const peers = ['hono', 'drizzle-orm', '@libsql/client'].map((name) => `${name}@${versionIn(ranges[name] ?? '')}`)
    const compilers = ['typescript-oldest@npm:typescript@5.4', 'typescript-newest@npm:typescript@latest']
    const others = ['valibot@1', '@types/node@20']
    const options = ['--no-audit', '--no-fund', '--ignore-scripts']
    try {
      await execute('npm', ['install', ...options, ...tarballs.values(), ...peers, ...compilers, ...others], {
        cwd: application,
        timeout: INSTALL_MS,
      })
    } catch (error) {
      const { stderr = '' } = error as { stderr?: string }
      // Packages that do not fit together are what this is about. Without a registry nothing is known.
      if (!/ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ENOTCACHED|network/.test(stderr)) throw error
      missing = stderr.split('\n')[0] ?? 'the registry cannot be reached'
    }
  }, INSTALL_MS)

  test('npm has chosen that end of the range', async ({ skip }) => {
    if (missing !== null) return skip(missing)
    const { peerDependencies } = await readManifest('server')
    const ranges: Record<string, string> = Object(peerDependencies)
    for (const name of ['hono', 'drizzle-orm']) {
      const { version }: { version: string } = JSON.parse(
        await readFile(join(application, 'node_modules', name, 'package.json'), 'utf8'),
      )
      const oldest = /\d+\.\d+\.\d+/.exec(ranges[name] ?? '')?.[0]
      expect(version === oldest, `${name} ${version}`).toBe(end === 'oldest')
    }
  })

  test.for(['typescript-oldest', 'typescript-newest'])(
    'an application compiles with %s',
    { timeout: INSTALL_MS },
    async (compiler, { skip }) => {
      if (missing !== null) return skip(missing)
      const folder = join(application, 'node_modules', compiler)
      const { bin, version }: { bin: Record<string, string>; version: string } = JSON.parse(
        await readFile(join(folder, 'package.json'), 'utf8'),
      )
      if (compiler === 'typescript-oldest') expect(version).toMatch(/^5\.4\./)
      const compile = (...options: string[]): Promise<string> =>
        execute(process.execPath, [join(folder, bin['tsc'] ?? ''), '-p', application, ...options], {
          cwd: application,
          maxBuffer: 64 << 20,
        }).then(
          () => '',
          (error: Error & { stdout?: string }) => error.stdout || error.message,
        )
      expect(await compile()).toBe('')
      // drizzle-orm does not compile without it: its declarations name drivers that are not installed. Ours do.
      const lines = (await compile('--skipLibCheck', 'false')).split('\n')
      expect(lines.filter((line) => /@landfall|^(client|server)\.ts/.test(line))).toEqual([])
    },
  )

  test('landfall serve takes an upload across restarts', async ({ skip }) => {
    if (missing !== null) return skip(missing)
    const server = await startProcess({
      name: `landfall beside the ${end} peers`,
      command: process.execPath,
      args: [join(application, 'node_modules/@landfall/server/dist/cli.js'), 'serve'],
      env: {
        LANDFALL_PORT: '0',
        LANDFALL_DATA_DIR: join(application, 'data'),
        LANDFALL_OWNER_HEADER: UPLOAD_OWNER_HEADER,
      },
      ready: /landfall listens on (\S+)\n/,
    })
    try {
      await uploadAcrossRestarts(server)
    } finally {
      expect(await server.kill('SIGTERM')).toEqual({ code: 0, signal: null })
    }
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
