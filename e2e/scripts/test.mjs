import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { forget, ofCommand, ofPlaywright, ofVitest } from './reports.mjs'
import { bin, main, root, say, Stop } from './run.mjs'
import { announce, setup } from './setup.mjs'

const USAGE = `npm test [-- options]
  --only GROUP[,GROUP]   checks (format, lint, types), unit, node, browser; default: all
  --grep PATTERN         only tests whose name matches; leaves the checks out
  --complete             servers and browsers that cannot be started are a failure, and not skipped`
const GROUPS = ['checks', 'unit', 'node', 'browser']
const REPORTS = join(root, 'test-results')
/**
 * Many tests of the server wait for time limits. On a busy machine that takes longer than the default limit of a step.
 */
const VITEST_LIMIT_MS = 30 * 60_000
/**
 * Tests that need what only some machines have: a disk with a set size, permissions that apply to root, a clock that
 * can be set.
 */
const DEPENDS_ON_MACHINE = /\bchaos\.test\.ts\)$/

function options() {
  try {
    const { values } = parseArgs({
      options: { only: { type: 'string' }, grep: { type: 'string' }, complete: { type: 'boolean', default: false } },
    })
    const groups = values.only?.split(',') ?? (values.grep === undefined ? GROUPS : GROUPS.slice(1))
    const unknown = groups.filter((group) => !GROUPS.includes(group))
    if (unknown.length > 0) throw new Error(`no such group: ${unknown.join(', ')}`)
    return { groups: new Set(groups), grep: values.grep, complete: values.complete }
  } catch (error) {
    throw new Stop(`${error.message}\n${USAGE}`)
  }
}

function steps(grep, env) {
  const check = (group, name, program, args) => ({
    group,
    name,
    run: async () => ofCommand(name, (await bin(program, args, { env })).code),
  })
  const filtered = grep !== undefined

  const vitest = (group, folder, name) => ({
    group,
    name,
    async run() {
      const path = join(REPORTS, `${folder}.json`)
      forget(path)
      const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${path}`]
      const filter = filtered ? ['-t', grep, '--passWithNoTests'] : []
      const { code } = await bin('vitest', ['run', ...reporters, ...filter], {
        cwd: join(root, folder),
        env,
        limitMs: VITEST_LIMIT_MS,
      })
      return ofVitest(folder, path, code, filtered)
    },
  })

  return [
    check('build', 'build', 'turbo', ['run', 'build', '--output-logs=new-only']),
    check('checks', 'format', 'prettier', ['--check', '.']),
    check('checks', 'lint', 'oxlint', ['--type-aware', '--deny-warnings']),
    check('checks', 'types', 'turbo', ['run', 'typecheck', '--continue', '--output-logs=errors-only']),
    vitest('unit', 'shared', 'shared: unit tests'),
    vitest('unit', 'server', 'server: unit tests'),
    vitest('unit', 'client', 'client: unit tests'),
    vitest('node', 'e2e', 'e2e: tests without a page'),
    {
      group: 'browser',
      name: 'e2e: tests in the browser',
      async run() {
        const path = join(REPORTS, 'browser.json')
        forget(path)
        const filter = filtered ? ['--grep', grep, '--pass-with-no-tests'] : []
        const { code } = await bin('playwright', ['test', '--reporter=list,json', ...filter], {
          cwd: join(root, 'e2e'),
          env: { ...env, PLAYWRIGHT_JSON_OUTPUT_FILE: path },
        })
        return ofPlaywright('browser', path, code, filtered)
      },
    },
  ]
}

function report(results, tookMs, { grep, complete }) {
  const sum = (of) => results.reduce((total, result) => total + of(result), 0)
  const failures = results.flatMap((result) => result.failures)
  // The build is always one of the passed steps.
  if (sum((result) => result.passed) <= 1 && failures.length === 0)
    failures.push(grep === undefined ? 'no test ran' : `no test matches ${grep}`)
  say(`\n── summary ${'─'.repeat(93)}`)
  const skips = results.flatMap((result) => result.skips)
  const incomplete = skips.filter((skip) => !DEPENDS_ON_MACHINE.test(skip)).length
  if (complete && incomplete > 0) failures.push(`${incomplete} tests were skipped`)
  const countsOf = (passed, failed, skipped) =>
    `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
  for (const { name, passed, failures: failed, skips: skipped, tookMs: stepMs } of results) {
    const counts = countsOf(passed, failed.length, skipped.length)
    say(`${failed.length > 0 ? 'FAILED' : 'ok    '}  ${name.padEnd(28)}${seconds(stepMs)}  ${counts}`)
  }
  say(`        ${'in all'.padEnd(28)}${seconds(tookMs)}`)
  if (failures.length > 0) say(`\nFailed:\n${lines(failures)}`)
  if (skips.length > 0) say(`\nSkipped, each with its reason in its name or above:\n${lines(skips)}`)
  const passed = sum((result) => result.passed)
  say(`\n${countsOf(passed, failures.length, skips.length)}`)
  return failures.length > 0 ? 1 : 0
}

const lines = (all) => all.map((one) => `  ${one}`).join('\n')
const seconds = (ms) => `${(ms / 1000).toFixed(1).padStart(7)} s`

async function test() {
  const { groups, grep, complete } = options()
  const startedMs = performance.now()
  const uses = {
    browser: groups.has('node') || groups.has('browser'),
    firefox: groups.has('node'),
    servers: groups.has('unit') || groups.has('node'),
  }
  const temporary = groups.has('node') ? ['npm packages: Node 20, 22 and 24; the peers, oldest and newest'] : []
  await announce('npm test', { ...uses, temporary })
  const { chromium, firefox } = await setup(uses)
  mkdirSync(REPORTS, { recursive: true })
  const env = {
    ...(process.stdout.isTTY ? {} : { NO_COLOR: '1' }),
    ...(chromium === null ? {} : { CHROMIUM_PATH: chromium }),
    ...(firefox === null ? {} : { FIREFOX_PATH: firefox }),
  }
  const results = []
  for (const step of steps(grep, env).filter(({ group }) => group === 'build' || groups.has(group))) {
    say(`\n── ${step.name} ${'─'.repeat(Math.max(0, 100 - step.name.length))}`)
    const stepStartedMs = performance.now()
    const result = await step.run()
    results.push({ ...result, name: step.name, tookMs: performance.now() - stepStartedMs })
  }
  return report(results, performance.now() - startedMs, { grep, complete })
}

await main(async () => {
  try {
    return await test()
  } catch (error) {
    // A script that reads only the last line must not take a missing count for success.
    process.on('exit', () => say('\n0 passed, 1 failed'))
    throw error
  }
})
