import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { randomUUID } from 'node:crypto'
import { OWNER_HEADER, SERVER_FOLDER, startLandfall } from '../programs/landfall.js'
import { expectStatus, ownHeaders, wireTo } from '../clients/wire.js'
import { quantile } from '../ground/figures.js'
import { usageOf } from '../ground/processes.js'
import { fillStore, PLANTED } from './filled-store.js'
import { dataDirectory, mebibytes, many, type Say, seconds, verdict } from './report.js'

/** How often a PUT is sent to the server while reconcile runs inside it. */
const PUT_EVERY_MS = 100
const PUT_LIMIT_MS = 500
const MEMORY_LIMIT_BYTES = 200 * 1_048_576

interface Run {
  readonly wallMs: number
  /** The peak memory of the command itself. */
  readonly peakResidentBytes: number
  readonly report: { readonly operations: number; readonly blobs: number; readonly found: Record<string, number> }
}

/**
 * `npm run bench -- --only reconcile [--count 1000000]` runs `landfall reconcile` (a dry run) over so many operations
 * and blobs. It runs first alone, and then inside a server that answers other requests at the same time.
 *
 * @returns false if a figure is beyond its limit, or if a finding is not what was planted.
 */
export async function benchReconcile(count: number, say: Say): Promise<boolean> {
  const { path: directory } = await dataDirectory('bench-reconcile-')
  // A million files must be removed, however this run ends.
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))

  const filledMs = await timed(() => fillStore(directory, count))
  say(`filled with ${many(count)} operations and blobs in ${seconds(filledMs)}`)

  const alone = await reconcile(directory)
  say(line('landfall reconcile, no server', alone))

  const server = await startLandfall(directory, { NODE_ENV: 'production' })
  const idle = server.usage()
  const asking = askAgainAndAgain(server.ready[1] ?? '')
  const beside = await reconcile(directory)
  const { answers, slowestMs, p99Ms } = await asking.end()
  const after = server.usage()
  await server.kill()
  say(line('landfall reconcile, inside a server', beside))
  say(
    `the server in that time: peak ${mebibytes(after.peakResidentBytes)} (idle ${mebibytes(idle.residentBytes)}), ` +
      `${answers} PUTs answered, p99 ${p99Ms.toFixed(0)} ms, slowest ${slowestMs.toFixed(0)} ms`,
  )

  const { foreign, unknown, ...rows } = PLANTED
  const onDisk = count - rows.missing - rows['set-aside'] + unknown + foreign
  const isRight = verdict(say, {
    [`findings: ${JSON.stringify([alone, beside].map(({ report }) => report.found))}`]: [alone, beside].some(
      ({ report }) => !isDeepStrictEqual(report.found, PLANTED),
    ),
    // A running server also has the operations that were declared during the measurement.
    [`operations: ${alone.report.operations}`]: alone.report.operations !== count,
    [`blobs: ${alone.report.blobs}, ${beside.report.blobs}, not ${onDisk}`]:
      alone.report.blobs !== onDisk || beside.report.blobs !== onDisk,
    'too much memory': [alone, beside, after].some(({ peakResidentBytes }) => peakResidentBytes >= MEMORY_LIMIT_BYTES),
    [`a PUT took ${slowestMs.toFixed(0)} ms`]: slowestMs >= PUT_LIMIT_MS,
  })
  if (isRight) say(`found exactly what was planted: ${JSON.stringify(PLANTED)}`)
  return isRight
}

async function reconcile(directory: string): Promise<Run> {
  const args = [`${SERVER_FOLDER}/dist/cli.js`, 'reconcile', '--json', '--data-dir', directory]
  const startMs = performance.now()
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  const closed = once(child, 'close')
  let peakResidentBytes = 0
  while (child.exitCode === null && child.signalCode === null) {
    try {
      // VmHWM is the peak since the start of the process, whenever it is read.
      peakResidentBytes = Math.max(peakResidentBytes, usageOf(child.pid ?? 0).peakResidentBytes || 0)
    } catch {
      // The process has just ended.
    }
    await sleep(50)
  }
  await closed
  const last = out.trimEnd().split('\n').at(-1) ?? ''
  const { report } = JSON.parse(last) as Pick<Run, 'report'>
  return { wallMs: performance.now() - startMs, peakResidentBytes, report }
}

function askAgainAndAgain(origin: string): {
  end(): Promise<{ answers: number; slowestMs: number; p99Ms: number }>
} {
  const tookMs: number[] = []
  const over = new AbortController()
  const asking = (async () => {
    while (!over.signal.aborted) {
      // Each owner may have only a limited number of open operations.
      const owner = { [OWNER_HEADER]: `bench-${tookMs.length}` }
      // The owner's tag is requested first, and that request is not measured.
      await ownHeaders(`${origin}/uploads`, owner)
      const startMs = performance.now()
      const answer = await expectStatus(await wireTo(`${origin}/uploads`, owner).declare(randomUUID(), 5), 201)
      await answer.arrayBuffer()
      tookMs.push(performance.now() - startMs)
      await sleep(PUT_EVERY_MS)
    }
  })()
  // `end` reports the error.
  asking.catch(() => {})
  return {
    async end() {
      over.abort()
      await asking
      tookMs.sort((a, b) => a - b)
      return { answers: tookMs.length, slowestMs: tookMs.at(-1) ?? 0, p99Ms: quantile(tookMs, 0.99) }
    },
  }
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now()
  await work()
  return performance.now() - startMs
}

const line = (what: string, { wallMs, peakResidentBytes, report }: Run): string =>
  `${what}: ${seconds(wallMs)}, peak ${mebibytes(peakResidentBytes)}, ${report.operations} operations, ${report.blobs} blobs`
