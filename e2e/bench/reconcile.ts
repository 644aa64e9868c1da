import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { randomUUID } from 'node:crypto'
import { OWNER_HEADER, repository, startLandfall } from '../ground/landfall.js'
import { ownHeaders } from '../clients/own-headers.js'
import { usageOf } from '../ground/processes.js'
import { fillStore, PLANTED } from './filled-store.js'

/** How often a PUT is sent to the server while reconcile runs inside it. */
const PUT_EVERY_MS = 100
const PUT_LIMIT_MS = 500
const MEMORY_LIMIT_BYTES = 200 * 1_048_576

interface Run {
  readonly wallMs: number
  /** Of the command itself. */
  readonly peakResidentBytes: number
  readonly report: { readonly operations: number; readonly blobs: number; readonly found: Record<string, number> }
}

/**
 * `npm run bench -- --only reconcile [--count 1000000]`: `landfall reconcile` (a dry run) over as many operations and
 * blobs, first by itself and then inside a running server, which is asked for something else meanwhile.
 *
 * @returns false where a figure is beyond its limit or a finding is not what was planted.
 */
export async function benchReconcile(count: number, say: (text: string) => void): Promise<boolean> {
  const parent = `${repository}data`
  mkdirSync(parent, { recursive: true })
  const directory = mkdtempSync(join(parent, 'bench-reconcile-'))
  // A million files must not stay behind, however this ends.
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))

  const filledMs = await timed(() => fillStore(directory, count))
  say(`filled with ${count.toLocaleString('en')} operations and blobs in ${seconds(filledMs)}`)

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
    `the server meanwhile: peak ${mebibytes(after.peakResidentBytes)} (idle ${mebibytes(idle.residentBytes)}), ` +
      `${answers} PUTs answered, p99 ${p99Ms.toFixed(0)} ms, slowest ${slowestMs.toFixed(0)} ms`,
  )

  const { foreign, unknown, ...rows } = PLANTED
  const onDisk = count - rows.missing - rows['set-aside'] + unknown + foreign
  const wrong = [alone, beside].flatMap(({ report, peakResidentBytes }, n) => [
    ...(isDeepStrictEqual(report.found, PLANTED) ? [] : [`findings: ${JSON.stringify(report.found)}`]),
    // Beside a server there are the operations that were declared meanwhile.
    ...(n === 0 && report.operations !== count ? [`operations: ${report.operations}`] : []),
    ...(report.blobs === onDisk ? [] : [`blobs: ${report.blobs}, not ${onDisk}`]),
    ...(peakResidentBytes < MEMORY_LIMIT_BYTES ? [] : [`memory: ${mebibytes(peakResidentBytes)}`]),
  ])
  if (after.peakResidentBytes >= MEMORY_LIMIT_BYTES)
    wrong.push(`memory of the server: ${mebibytes(after.peakResidentBytes)}`)
  if (slowestMs >= PUT_LIMIT_MS) wrong.push(`a PUT took ${slowestMs.toFixed(0)} ms`)
  say(wrong.length === 0 ? `found exactly what was planted: ${JSON.stringify(PLANTED)}` : `WRONG: ${wrong.join('; ')}`)
  return wrong.length === 0
}

async function reconcile(directory: string): Promise<Run> {
  const args = [`${repository}server/dist/cli.js`, 'reconcile', '--json', '--data-dir', directory]
  const startMs = performance.now()
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  const closed = once(child, 'close')
  let peakResidentBytes = 0
  while (child.exitCode === null && child.signalCode === null) {
    try {
      // VmHWM: the peak since its start, whatever the moment of the look.
      peakResidentBytes = Math.max(peakResidentBytes, usageOf(child.pid ?? 0).peakResidentBytes || 0)
    } catch {
      // It has just ended.
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
      // Owners may have only so many open ones.
      const own = await ownHeaders(`${origin}/uploads`, { [OWNER_HEADER]: `bench-${tookMs.length}` })
      const startMs = performance.now()
      const answer = await fetch(`${origin}/uploads/operations/${randomUUID()}`, {
        method: 'PUT',
        headers: { ...own, 'Content-Type': 'application/json' },
        body: JSON.stringify({ file: { name: 'a', size: 5, type: '' } }),
      })
      if (answer.status !== 201) throw new Error(`a PUT was answered ${answer.status}: ${await answer.text()}`)
      await answer.arrayBuffer()
      tookMs.push(performance.now() - startMs)
      await sleep(PUT_EVERY_MS)
    }
  })()
  // Told by `end`.
  asking.catch(() => {})
  return {
    async end() {
      over.abort()
      await asking
      tookMs.sort((a, b) => a - b)
      const p99Ms = tookMs[Math.floor(tookMs.length * 0.99)] ?? 0
      return { answers: tookMs.length, slowestMs: tookMs.at(-1) ?? 0, p99Ms }
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
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
const mebibytes = (bytes: number): string => `${(bytes / 1_048_576).toFixed(0)} MiB`
