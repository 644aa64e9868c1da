/** The demo application, as `npm start` runs it: what strangers can do to it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { repository } from '../../ground/repository.js'
import { freePort } from '../../ground/ports.js'

let directory: string
let demo: ChildProcess
let port: number
let address: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'landfall-demo-'))
  port = await freePort()
  address = `http://127.0.0.1:${port}`
  demo = spawn(process.execPath, [join(repository, 'e2e/dist/demo/server.js')], {
    env: { PATH: process.env['PATH'], PORT: String(port), DATA_DIR: directory },
    stdio: 'inherit',
  })
  while (!(await answers('127.0.0.1'))) await sleep(50)
})
afterEach(async () => {
  demo.kill('SIGTERM')
  await once(demo, 'exit')
  await rm(directory, { recursive: true })
})

const answers = (host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host, timeout: 1_000 })
    socket
      .once('connect', () => resolve(true))
      .once('error', () => resolve(false))
      .once('timeout', () => resolve(false))
    socket.once('connect', () => socket.destroy()).once('timeout', () => socket.destroy())
  })

async function signIn(name: string): Promise<Record<string, string>> {
  const answer = await fetch(`${address}/api/session`, { method: 'PUT', body: JSON.stringify({ name }) })
  expect(answer.status).toBe(200)
  const headers = { Cookie: (answer.headers.get('Set-Cookie') ?? '').split(';')[0] ?? '', 'Landfall-Version': '1' }
  const whose = await fetch(`${address}/uploads/operations?open`, { headers })
  return { ...headers, 'Landfall-Owner': whose.headers.get('Landfall-Owner') ?? '' }
}

test('listens on this machine only', async () => {
  expect(await answers('127.0.0.1')).toBe(true)
  const others = Object.values(networkInterfaces()).flatMap((all) => (all ?? []).filter(({ internal }) => !internal))
  for (const { address: other } of others) expect([other, await answers(other)]).toEqual([other, false])
})

test('reads no more of a name than a name has', async () => {
  const piece = new Uint8Array(1_000_000)
  let sent = 0
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent >= 500) controller.close()
      else controller.enqueue(piece)
      sent += 1
    },
  })
  const answer = await fetch(`${address}/api/session`, { method: 'PUT', body, duplex: 'half' } as RequestInit)
  expect(answer.status).toBe(413)
  expect(sent).toBeLessThan(100)
  await signIn('ann')
})

test('two visitors may use one operation id, and both files arrive', async () => {
  const id = '01920000-0000-7000-8000-000000000001'
  for (const name of ['ann', 'bob']) {
    const headers = await signIn(name)
    const file = { name: `${name}.txt`, size: 3, type: 'text/plain' }
    const declared = await fetch(`${address}/uploads/operations/${id}`, {
      method: 'PUT',
      headers,
      body: JSON.stringify({ file }),
    })
    expect(declared.status).toBe(201)
    const sent = await fetch(`${address}/uploads/files/${id}`, {
      method: 'PATCH',
      headers: {
        ...headers,
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': '0',
        'Content-Type': 'application/offset+octet-stream',
      },
      body: 'abc',
    })
    expect(sent.status).toBe(204)
    const point = async () => {
      const answer = await fetch(`${address}/uploads/operations/${id}`, { headers })
      return v.parse(v.object({ recoveryPoint: v.string() }), await answer.json()).recoveryPoint
    }
    for (const deadline = Date.now() + 10_000; !['referenced', 'completed'].includes(await point()); await sleep(100))
      if (Date.now() > deadline) throw new Error(`${name} waits at ${await point()}`)
    const listed = await fetch(`${address}/api/files`, { headers })
    expect(await listed.json()).toMatchObject({ files: [{ name: `${name}.txt`, operationId: id }] })
  }
})
