import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { LoadReport } from './load.js'
import { compiled } from '../bench/systems.js'

/**
 * Runs the load generator as a process of its own, so that its CPU is not the server's.
 *
 * @throws when an upload fails, or when it takes too long
 */
export async function runLoad(
  values: Readonly<Record<string, string | number>>,
  onAcknowledged: () => void = () => {},
  withinMs = 600_000,
): Promise<LoadReport> {
  const args = Object.entries(values).flatMap(([name, value]) => [`--${name}`, String(value)])
  const child = spawn(process.execPath, [compiled('clients/load.js'), ...args], {
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
