/**
 * `npm run sweep -- mutations [NAME]` tests the tests. Each mutation breaks a copy of the built server, or of the
 * client, in a place that matters. The model, the sweep of the server or the sweep of the client must find it.
 */
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { chromium } from '@playwright/test'
import { launchOptions } from '../ground/chromium.js'
import { repository } from '../ground/repository.js'
import type { Outcome } from '../sweep/campaign.js'
import { describeClient, sweepClient } from '../sweep/client/main.js'
import { describe, sweep } from '../sweep/main.js'
import { CLIENT_MUTATIONS } from './client-mutations.js'
import { MODEL_MUTATIONS } from './model-mutations.js'
import { mutate, mutateClient } from './mutate.js'
import { MUTATIONS } from './mutations.js'

/** What caught a mutation. `by` is null if nothing caught it. */
interface Caught {
  readonly by: string | null
  readonly where: string
}

/** Runs a sweep that stops at its first violation. A sweep that fails before any kill counts as caught too. */
async function caught<R extends Outcome>(
  name: string,
  runs: Promise<{ readonly results: readonly R[] }>,
  inWords: (result: R) => string,
): Promise<Caught> {
  try {
    const { results } = await runs
    const bad = results.find(({ outcome }) => outcome === 'bad')
    return { by: bad === undefined ? null : inWords(bad), where: `${name}, ${results.length} runs` }
  } catch (error) {
    return { by: error instanceof Error ? error.message : String(error), where: `${name}, before any run` }
  }
}

/** Runs the single faults of one scenario of the model. */
async function caughtByModel(folder: string, where: string): Promise<Caught> {
  const env = { ...process.env, NO_COLOR: '1', LANDFALL_MODEL: 'singles', LANDFALL_MODEL_DIST: join(folder, 'dist') }
  const output = await new Promise<string>((resolve) => {
    execFile(
      join(repository, 'node_modules/.bin/vitest'),
      ['run', 'test/model.test.ts', '-t', ` ${where}`],
      { cwd: join(repository, 'server'), env, timeout: 300_000, maxBuffer: 64 * 1024 * 1024 },
      (_error, stdout, stderr) => resolve(stdout + stderr),
    )
  })
  // Only a violation counts. That the run failed is not enough.
  const violation = /^\+ {3}"(.*\n(?:\+ {5}\d+: .*\n?)+)/m.exec(output)?.[1]
  return { by: violation?.replaceAll(/^\+ +/gm, '     ') ?? null, where: `model, ${where}` }
}

const wanted = process.argv[2] ?? ''

async function each<M extends { readonly name: string }>(
  mutations: readonly M[],
  change: (mutation: M) => Promise<string>,
  show: (folder: string, mutation: M) => Promise<Caught>,
): Promise<void> {
  for (const mutation of mutations.filter(({ name }) => name.includes(wanted))) {
    const folder = await change(mutation)
    try {
      const { by, where } = await show(folder, mutation)
      process.stdout.write(`${by === null ? 'NOT CAUGHT' : 'caught'}  ${mutation.name}  (${where})\n     ${by ?? ''}\n`)
      if (by === null) process.exitCode = 1
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}

const browser = await chromium.launch(launchOptions())
await each(MODEL_MUTATIONS, mutate, (folder, { where }) => caughtByModel(folder, where))
await each(MUTATIONS, mutate, (serverFolder, { where }) => {
  const only = where === undefined ? {} : { only: where }
  return caught(
    'sweep',
    sweep(browser, { sample: 150, seed: 3, parallel: 2, bail: true, serverFolder, ...only }),
    describe,
  )
})
await browser.close()
await each(CLIENT_MUTATIONS, mutateClient, (folder, { only, at }) => {
  const page = join(folder, 'page')
  return caught(
    'client',
    sweepClient({ sample: null, seed: 3, parallel: 1, bail: true, page, only, at }),
    describeClient,
  )
})
// A run that was given up may still wait for something, which would keep the process alive.
process.exit()
