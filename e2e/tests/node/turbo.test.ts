/** A build that does not run again after a change is a stale program that every later test would run unseen. */
import { execFile } from 'node:child_process'
import { appendFile, cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'

const execute = promisify(execFile)
const MAX_OUTPUT_BYTES = 64 << 20

interface Task {
  readonly taskId: string
  readonly hash: string
  readonly inputs: Record<string, string>
}
type Plan = ReadonlyMap<string, Task>

const BUILT = ['shared', 'server', 'client', 'e2e'] as const
/** Of each package, the packages whose build contains it. */
const REBUILT = {
  shared: ['shared', 'server', 'client', 'e2e'],
  server: ['server', 'e2e'],
  client: ['client', 'e2e'],
  e2e: ['e2e'],
} satisfies Record<(typeof BUILT)[number], readonly string[]>

/** Whether a file of a package only tests, explains, or says how to run what was built. */
const takesNoPart = (path: string): boolean =>
  /^(test|tests|docs|deploy|scripts)\/|\.md$|^LICENSE$|^tsconfig\.test\.json$|^(vitest|playwright)\.config\.|^bench\/results\.json$/.test(
    path,
  )

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let copy: string
/** The files of each package, as git knows them, from the package's folder. */
const files = new Map<string, string[]>()

async function git(...args: string[]): Promise<string> {
  return (await execute('git', args, { cwd: copy, maxBuffer: MAX_OUTPUT_BYTES })).stdout
}

/** Builds nothing: turbo says what it would run, and from which inputs. */
async function planned(task: string): Promise<Plan> {
  const turbo = join(repository, 'node_modules/.bin/turbo')
  const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' }
  const { stdout } = await execute(turbo, ['run', task, '--dry=json'], { cwd: copy, env, maxBuffer: MAX_OUTPUT_BYTES })
  const { tasks }: { tasks: Task[] } = JSON.parse(stdout.slice(stdout.indexOf('{')))
  return new Map(tasks.map((one) => [one.taskId.replace('@landfall/', ''), one]))
}

/** The packages whose task is another one than before. */
const changed = (task: string, before: Plan, after: Plan): string[] =>
  BUILT.filter((name) => before.get(`${name}#${task}`)?.hash !== after.get(`${name}#${task}`)?.hash)

/** Changes files for as long as `body` runs. */
async function withChanged<T>(paths: readonly string[], body: () => Promise<T>): Promise<T> {
  const texts = await Promise.all(paths.map((path) => readFile(join(copy, path))))
  await Promise.all(paths.map((path) => appendFile(join(copy, path), '\n')))
  try {
    return await body()
  } finally {
    await git('checkout', '--', ...paths)
    const restored = await Promise.all(paths.map((path) => readFile(join(copy, path))))
    expect(restored.every((text, at) => text.equals(texts[at] ?? Buffer.alloc(0)))).toBe(true)
  }
}

beforeAll(async () => {
  directory = await temporaryDirectory()
  copy = join(directory.path, 'repository')
  const { stdout } = await execute('git', ['ls-files', '-co', '--exclude-standard', '--deduplicate'], {
    cwd: repository,
    maxBuffer: MAX_OUTPUT_BYTES,
  })
  for (const path of stdout.trimEnd().split('\n')) {
    await mkdir(dirname(join(copy, path)), { recursive: true })
    // A file that is deleted and not yet committed is not there any more.
    await cp(join(repository, path), join(copy, path)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    const [name = '', ...rest] = path.split('/')
    if (rest.length > 0) files.set(name, [...(files.get(name) ?? []), rest.join('/')])
  }
  await git('init', '--quiet')
  await git('add', '--all')
  const author = ['-c', 'user.name=test', '-c', 'user.email=test@localhost', '-c', 'commit.gpgsign=false']
  await git(...author, 'commit', '--quiet', '--message', 'as it is')
})
afterAll(() => directory.remove())

const partsOf = (name: string): string[] => (files.get(name) ?? []).filter((path) => !takesNoPart(path))

test.each(BUILT)('a build of %s reads nothing that turbo does not compare', async (name) => {
  const inputs = (await planned('build')).get(`${name}#build`)?.inputs ?? {}
  const parts = partsOf(name)
  expect(parts).toEqual(expect.arrayContaining(['package.json', 'tsconfig.json']))
  expect(parts.filter((path) => !(path in inputs))).toEqual([])
  // The same question asked of the compiler.
  const tsc = join(repository, 'node_modules/.bin/tsc')
  const { stdout } = await execute(tsc, ['-p', join(repository, name), '--listFilesOnly'])
  const read = stdout
    .trimEnd()
    .split('\n')
    .map((path) => relative(join(repository, name), path.trim()))
    .filter((path) => !path.startsWith('..') && !/(^|\/)(node_modules|dist)\//.test(path))
  expect(read.length).toBeGreaterThan(3)
  expect(read.filter((path) => !(path in inputs))).toEqual([])
})

test.each(BUILT)('a changed file of any kind in %s makes its build run again', async (name) => {
  const before = await planned('build')
  /** One of each folder and each extension. */
  const kinds = new Map(partsOf(name).map((path) => [`${dirname(path)} ${path.slice(path.lastIndexOf('.'))}`, path]))
  expect(kinds.size).toBeGreaterThan(1)
  const paths = [...kinds.values()].filter((path) => !path.endsWith('package.json'))
  const after = await withChanged(
    paths.map((path) => `${name}/${path}`),
    () => planned('build'),
  )
  expect(changed('build', before, after)).toEqual(REBUILT[name])
  const [own, ownAfter] = [before.get(`${name}#build`)?.inputs, after.get(`${name}#build`)?.inputs]
  expect(paths.filter((path) => own?.[path] === ownAfter?.[path])).toEqual([])
})

test('one changed file is enough: a program of the chaos, an addition to the build of the client, the page of the demo', async () => {
  const before = await planned('build')
  const one = async (path: string): Promise<string[]> => {
    expect(partsOf(path.split('/')[0] ?? '')).toContain(path.slice(path.indexOf('/') + 1))
    return changed('build', before, await withChanged([path], () => planned('build')))
  }
  expect(await one('e2e/chaos/run.ts')).toEqual(['e2e'])
  expect(await one('client/tus-engine.mjs')).toEqual(['client', 'e2e'])
  const page = partsOf('e2e').find((path) => path.endsWith('/page/index.html')) ?? 'the page of the demo is not there'
  expect(await one(`e2e/${page}`)).toEqual(['e2e'])
})

test.each(['tsconfig.base.json', 'package-lock.json', 'turbo.json'])(
  'a changed %s makes every build run again',
  async (path) => {
    const before = await planned('build')
    const text = await readFile(join(copy, path), 'utf8')
    // turbo compares what its own settings mean, and not how they are written.
    const differs = path === 'turbo.json' ? text.replace('"dist/**"', '"dist/**", "another/**"') : `${text}\n`
    await writeFile(join(copy, path), differs)
    try {
      expect(changed('build', before, await planned('build'))).toEqual([...BUILT])
    } finally {
      await git('checkout', '--', path)
    }
  },
)

test('changed tests and documents make no build run again, and the types are checked again', async () => {
  const before = await planned('build')
  const typesBefore = await planned('typecheck')
  const paths = BUILT.flatMap((name) => (files.get(name) ?? []).filter(takesNoPart).map((path) => `${name}/${path}`))
  expect(paths.length).toBeGreaterThan(20)
  await withChanged(paths, async () => {
    expect(changed('build', before, await planned('build'))).toEqual([])
    expect(changed('typecheck', typesBefore, await planned('typecheck'))).toEqual([...BUILT])
  })
})

test("what the server's tests take from e2e is compared before their types are taken for checked", async () => {
  const { stdout } = await execute(
    join(repository, 'node_modules/.bin/tsc'),
    ['-p', join(repository, 'server/tsconfig.test.json'), '--listFilesOnly'],
    { maxBuffer: MAX_OUTPUT_BYTES },
  )
  const inputs = (await planned('typecheck')).get('server#typecheck')?.inputs ?? {}
  const read = stdout
    .trimEnd()
    .split('\n')
    .map((path) => relative(join(repository, 'server'), path.trim()))
    .filter((path) => path.startsWith('../e2e/') && !/(^|\/)(node_modules|dist)\//.test(path))
  expect(read.length).toBeGreaterThan(3)
  expect(read.filter((path) => !(path in inputs))).toEqual([])
})
