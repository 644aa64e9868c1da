import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forget, ofCommand, ofPlaywright, ofVitest } from '../../scripts/reports.mjs'
import { bin, root, run } from '../../scripts/run.mjs'

let directory
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'landfall-'))
  await writeFile(join(directory, 'package.json'), '{"type":"module"}')
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const PASSES = `test('passes', () => {})`
const FAILS = `test('fails', () => { throw new Error('no') })`

async function countedByVitest(files, filter) {
  const folder = await mkdtemp(join(directory, 'v-'))
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, name), `import { test } from 'vitest'\n${text}\n`)
  }
  const path = join(folder, 'report.json')
  const args = ['run', '--root', folder, '--reporter=json', `--outputFile=${path}`]
  const { code } = await bin('vitest', filter === undefined ? args : [...args, '-t', filter, '--passWithNoTests'], {
    quiet: true,
  })
  return ofVitest('x', path, code, filter !== undefined)
}

async function countedByPlaywright(text) {
  const folder = await mkdtemp(join(directory, 'p-'))
  await writeFile(join(folder, 'playwright.config.js'), `export default { testDir: '.', retries: 1 }`)
  await writeFile(join(folder, 'a.spec.js'), `import { test } from '@playwright/test'\n${text}\n`)
  const path = join(folder, 'report.json')
  const { code } = await bin('playwright', ['test', '--reporter=json'], {
    cwd: folder,
    quiet: true,
    env: { PLAYWRIGHT_JSON_OUTPUT_FILE: path },
  })
  return ofPlaywright('x', path, code, false)
}

describe('a vitest report', () => {
  test('counts what passed, failed and was skipped', async () => {
    const { passed, failures, skips } = await countedByVitest({
      'a.test.js': `${PASSES}\n${FAILS}\ntest.skip('skipped', () => {})\ntest.todo('later')`,
      'b.test.js': PASSES,
    })
    expect(passed).toBe(2)
    expect(skips).toEqual([expect.stringContaining('x: skipped ('), expect.stringContaining('x: later (')])
    expect(failures).toEqual([expect.stringContaining('x: fails (')])
  })

  test('counts a file that cannot be loaded as one failure', async () => {
    const { passed, failures } = await countedByVitest({
      'a.test.js': PASSES,
      'b.test.js': `throw new Error('broken')`,
    })
    expect(passed).toBe(1)
    expect(failures).toEqual([expect.stringContaining('broken')])
  })

  test('counts an error outside of the tests as one failure', async () => {
    const { failures } = await countedByVitest({
      'a.test.js': `test('passes', async () => { void Promise.reject(new Error('lost')); await new Promise((r) => setTimeout(r, 50)) })`,
    })
    expect(failures).toHaveLength(1)
  })

  test('is a failure when no test ran, except when tests were chosen by name', async () => {
    expect((await countedByVitest({})).failures).toHaveLength(1)
    expect(await countedByVitest({ 'a.test.js': PASSES }, 'nothing')).toMatchObject({ passed: 0, failures: [] })
  })

  test('is a failure when there is none', () => {
    forget(join(directory, 'missing.json'))
    expect(ofVitest('x', join(directory, 'missing.json'), 139).failures).toEqual([
      'x: crashed (exit status 139), no report was written',
    ])
  })
})

describe('a Playwright report', () => {
  test('counts what passed, failed and was skipped; passing at the second attempt is failing', async () => {
    const { passed, failures, skips } = await countedByPlaywright(`test.describe('group', () => { ${PASSES}; ${FAILS} })
      test.skip('skipped', () => {})
      test('flaky', ({}, info) => { if (info.retry === 0) throw new Error('no') })`)
    expect(passed).toBe(1)
    expect(skips).toEqual([expect.stringContaining('x: skipped (')])
    expect(failures.toSorted()).toEqual([expect.stringContaining('x: fails'), expect.stringContaining('x: flaky')])
  })

  test('is a failure when a file cannot be loaded, and when there is no test', async () => {
    expect((await countedByPlaywright(`${PASSES}\nthrow new Error('broken')`)).failures).not.toHaveLength(0)
    expect((await countedByPlaywright('')).failures).not.toHaveLength(0)
  })
})

describe('a command', () => {
  test('is one test', () => {
    expect(ofCommand('lint', 0)).toEqual({ passed: 1, failures: [], skips: [] })
    expect(ofCommand('lint', 2)).toMatchObject({ passed: 0, failures: ['lint: exit status 2'] })
  })

  test('is ended with its children when it takes too long, and gets no standard input', async () => {
    const startMs = performance.now()
    const { code, output } = await run('sh', ['-c', 'cat; echo got nothing; sleep 60 & sleep 60'], {
      limitMs: 500,
      quiet: true,
    })
    expect([code, output]).toEqual([124, 'got nothing\n'])
    expect(performance.now() - startMs).toBeLessThan(5000)
    expect(await run('no-such-command', [], { quiet: true })).toMatchObject({ code: 127 })
  })
})
