import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { LoadOptions, LoadReport } from './load.js'
import { compiled } from '../ground/repository.js'

/**
 * Runs the load generator as a separate process, so that its CPU time is not counted as the server's.
 *
 * @throws when an upload fails, or when the run takes too long
 */
export async function runLoad(
  options: LoadOptions,
  onAcknowledged: () => void = () => {},
  withinMs = 600_000,
): Promise<LoadReport> {
  const child = spawn(process.execPath, [compiled('clients/load'), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: withinMs,
  })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const ended = once(child, 'close')
  let report: LoadReport | null = null
  for await (const line of createInterface(child.stdout)) {
    if (line === 'acknowledged') onAcknowledged()
    else report = JSON.parse(line) as LoadReport
  }
  await ended
  if (report === null) throw new Error(`the load generator failed: ${errors.slice(-2_000)}`)
  return report
}
