import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { forget, ofCommand, ofVitest } from './reports.mjs'
import { bin, main, root, say } from './run.mjs'
import { announce, setup } from './setup.mjs'

// The quick lane: format, lint, types, and the tests that start no other process. `npm test` runs everything.

const REPORTS = join(root, 'test-results')
const LIMIT_MS = 10 * 60_000
const env = process.stdout.isTTY ? {} : { NO_COLOR: '1' }

const command = (name, program, args) => ({
  name,
  run: async () => ofCommand(name, (await bin(program, args, { env, limitMs: LIMIT_MS })).code),
})

const tests = (folder) => ({
  name: `${folder}: tests without servers`,
  async run() {
    const path = join(REPORTS, `quick-${folder}.json`)
    forget(path)
    const { code } = await bin(
      'vitest',
      ['run', '--reporter=dot', '--reporter=json', `--outputFile.json=${path}`],
      // See quick-lane.ts.
      { cwd: join(root, folder), env: { ...env, LANDFALL_TESTS: 'quick' }, limitMs: LIMIT_MS },
    )
    return ofVitest(folder, path, code, false)
  },
})

/** The two rows run at the same time: compilers and linters use a core, while many of the tests wait. */
const ROWS = [
  [
    command('format', 'prettier', ['--check', '--log-level=warn', '.']),
    command('types', 'turbo', ['run', 'typecheck', '--continue', '--output-logs=errors-only']),
    command('lint', 'oxlint', ['--type-aware', '--deny-warnings']),
  ],
  [tests('shared'), tests('server'), tests('client'), tests('e2e')],
]

async function inOrder(steps) {
  const results = []
  for (const { name, run } of steps) {
    const startedMs = performance.now()
    results.push({ name, ...(await run()), tookMs: performance.now() - startedMs })
  }
  return results
}

const seconds = (ms) => `${(ms / 1000).toFixed(1).padStart(7)} s`

await main(async () => {
  const startedMs = performance.now()
  await announce('npm run check', { browser: false })
  await setup({ browser: false })
  mkdirSync(REPORTS, { recursive: true })
  const built = await inOrder([command('build', 'turbo', ['run', 'build', '--output-logs=errors-only'])])
  const isBuilt = built.every(({ failures }) => failures.length === 0)
  const rest = isBuilt ? (await Promise.all(ROWS.map(inOrder))).flat() : []
  say(`\n── summary ${'─'.repeat(93)}`)
  for (const { name, passed, failures, tookMs } of [...built, ...rest])
    say(
      `${failures.length > 0 ? 'FAILED' : 'ok    '}  ${name.padEnd(32)}${seconds(tookMs)}  ${passed} passed, ${failures.length} failed`,
    )
  say(`        ${'in all'.padEnd(32)}${seconds(performance.now() - startedMs)}`)
  const failures = [...built, ...rest].flatMap((result) => result.failures)
  if (failures.length > 0) say(`\nFailed:\n${failures.map((one) => `  ${one}`).join('\n')}`)
  return failures.length > 0 ? 1 : 0
})
