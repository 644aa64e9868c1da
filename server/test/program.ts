import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach } from 'vitest'
import { temporaryDirectory } from './fixtures.js'
import { later } from './harness.js'
import { ownerTags } from './owner-tags.js'

// These tests run the built program, as a user does. `npm test` builds before it tests.
export const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url))

/** The built program, with a directory of its own for each test. Processes that still run after a test are killed. */
export function useProgram() {
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let children: ChildProcess[] = []
  beforeEach(async () => {
    directory = await temporaryDirectory()
  })
  afterEach(async () => {
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    children = []
    await directory.remove()
  })

  function start(args: readonly string[], env: Record<string, string> = {}, cli = CLI) {
    const child = spawn(process.execPath, [cli, ...args], { env: { PATH: process.env['PATH'], ...env } })
    children.push(child)
    const output = { out: '', err: '' }
    child.stdout.on('data', (chunk: Buffer) => (output.out += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (output.err += chunk.toString()))
    const exited = once(child, 'close').then(([code, signal]) => ({
      code: code as number | null,
      signal: signal as string | null,
      ...output,
    }))
    return { child, output, exited }
  }

  /** `cli` is another build of the program. */
  async function serve(env: Record<string, string> = {}, cli = CLI) {
    const defaults = {
      LANDFALL_PORT: '0',
      LANDFALL_DATA_DIR: join(directory.path, 'data'),
      LANDFALL_OWNER_HEADER: 'X-Owner',
    }
    const started = start(['serve'], { ...defaults, ...env }, cli)
    for (const deadline = Date.now() + 60_000; !started.output.out.includes('\n'); await later(20)) {
      if (Date.now() > deadline || started.child.exitCode !== null) throw new Error(started.output.err)
    }
    const address = /^landfall listens on (http:\/\/127\.0\.0\.1:\d+\/uploads)\n$/.exec(started.output.out)?.[1] ?? ''
    const tagOf = ownerTags((owner) => fetch(`${address}/operations?open`, { headers: { 'X-Owner': owner } }))
    /** Sends what Landfall's own client sends. */
    const request = async (
      method: string,
      path: string,
      init: { headers?: Record<string, string>; body?: string | Uint8Array<ArrayBuffer> } = {},
    ) =>
      fetch(address + path, {
        method,
        ...init,
        headers: {
          'X-Owner': 'ann',
          'Landfall-Version': '1',
          'Landfall-Owner': await tagOf(init.headers?.['X-Owner'] ?? 'ann'),
          ...init.headers,
        },
      })
    const declare = (id: string, size: number, owner = 'ann') =>
      request('PUT', `/operations/${id}`, {
        headers: { 'X-Owner': owner },
        body: JSON.stringify({ file: { name: 'a', size, type: '' } }),
      })
    const patch = (id: string, offset: number, body: Uint8Array<ArrayBuffer>) =>
      request('PATCH', `/files/${id}`, {
        headers: {
          'Tus-Resumable': '1.0.0',
          'Upload-Offset': String(offset),
          'Content-Type': 'application/offset+octet-stream',
        },
        body,
      })
    return { ...started, address, tagOf, request, declare, patch }
  }

  return {
    start,
    serve,
    get directory() {
      return directory.path
    },
  }
}
