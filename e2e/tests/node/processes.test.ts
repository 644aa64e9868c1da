import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { launchOptions, killBrowser, openProfile } from '../../ground/chromium.js'
import { makeFile, pseudoRandomBytes, sha256Of, wireDigest } from '../../ground/files.js'
import { freePort, isFree, listen } from '../../ground/ports.js'
import { type ProcessOptions, startProcess } from '../../ground/processes.js'
import { createServer } from 'node:net'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'landfall-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const node = (script: string, more: Partial<ProcessOptions> = {}): ProcessOptions => ({
  command: process.execPath,
  args: ['-e', script],
  name: 'script',
  ready: /ready (\d+)/,
  ...more,
})
const SERVES = `process.stdout.write('rea'); setTimeout(() => console.log('dy ' + process.env.N), 20); setInterval(() => {}, 1000)`

test('a process is started when its line has come, killed, and started again with the same or other settings', async () => {
  const running = await startProcess(node(SERVES, { env: { N: '1' } }))
  const first = running.pid
  expect(running.ready[1]).toBe('1')
  expect(running.running).toBe(true)
  expect(await running.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' })
  expect(running.running).toBe(false)
  await running.restart()
  expect(running.ready[1]).toBe('1')
  expect(running.pid).not.toBe(first)
  await running.restart({ env: { N: '2' } })
  expect(running.ready[1]).toBe('2')
  expect(running.output()).toBe('ready 1\nready 1\nready 2\n')
  expect(await running.kill()).toEqual({ code: null, signal: 'SIGTERM' })
})

test('a process that ends, or takes too long, before it is ready is an error that carries its output', async () => {
  await expect(startProcess(node(`console.error('no such thing'); process.exit(3)`))).rejects.toThrow(
    'script ended (3) unready:\nno such thing',
  )
  await expect(startProcess(node(`setInterval(() => {}, 1000)`, { readyWithinMs: 200 }))).rejects.toThrow(
    'script was not ready within 200 ms',
  )
  await expect(startProcess({ command: join(directory, 'missing'), ready: /x/ })).rejects.toThrow('ENOENT')
})

test('memory and CPU time of a process are measured', async () => {
  const running = await startProcess(
    node(`let keep = Buffer.alloc(100 * 1024 * 1024, 1); keep = null
      // By its own CPU time: on a busy machine 300 ms pass with less of it.
      while (process.cpuUsage().user + process.cpuUsage().system < 300_000);
      console.log('ready 1'); setInterval(() => {}, 1000)`),
  )
  const usage = running.usage()
  expect(usage.peakResidentBytes).toBeGreaterThan(120 * 1024 * 1024)
  expect(usage.peakResidentBytes).toBeGreaterThanOrEqual(usage.residentBytes)
  expect(usage.cpuMs).toBeGreaterThan(250)
  expect(usage.cpuMs).toBeLessThan(3000)
  await running.kill()
})

test('made files are the same for the same seed, and their digest is that of the stored bytes', async () => {
  const sizeBytes = 3 * 1024 * 1024 + 17
  const one = await makeFile(join(directory, 'one'), sizeBytes, 'seed')
  const two = await makeFile(join(directory, 'two'), sizeBytes, 'seed')
  const other = await makeFile(join(directory, 'other'), sizeBytes, 'other')
  expect(one.sha256).toBe(two.sha256)
  expect(one.sha256).not.toBe(other.sha256)
  expect(await sha256Of(one.path)).toBe(one.sha256)
  await writeFile(join(directory, 'three'), pseudoRandomBytes(sizeBytes, 'seed'))
  expect(await sha256Of(join(directory, 'three'))).toBe(one.sha256)
  expect(await makeFile(join(directory, 'empty'), 0)).toMatchObject({ sizeBytes: 0 })
  expect(wireDigest(one.sha256)).toMatch(/^sha-256=:[A-Za-z0-9+/]{43}=:$/)
})

test('a free port is free until somebody listens', async () => {
  const port = await freePort()
  expect(await isFree(port)).toBe(true)
  const server = createServer()
  expect(await listen(server, port)).toBe(port)
  expect(await isFree(port)).toBe(false)
  await new Promise((resolve) => server.close(resolve))
})

test(
  'a browser is killed whole, and its profile opens again with what IndexedDB held',
  { timeout: 60_000 },
  async () => {
    expect(launchOptions(['--x']).args).toContain('--x')
    const profile = join(directory, 'profile')
    const page = 'data:text/html,<title>x</title>'
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: ${page.length}\r\n\r\n${page}`)
    })
    const origin = `http://127.0.0.1:${await listen(server)}/`
    const count = `new Promise((resolve, reject) => {
    const open = indexedDB.open('x')
    open.onupgradeneeded = () => open.result.createObjectStore('s')
    open.onerror = () => reject(open.error)
    open.onsuccess = () => {
      const tx = open.result.transaction('s', 'readwrite'), store = tx.objectStore('s'), get = store.get('n')
      get.onsuccess = () => store.put((get.result ?? 0) + 1, 'n')
      tx.oncomplete = () => resolve((get.result ?? 0) + 1)
    }
  })`
    const before = await openProfile(profile)
    const tab = before.pages()[0] ?? (await before.newPage())
    await tab.goto(origin)
    expect(await tab.evaluate(count)).toBe(1)
    const pids = await killBrowser(profile)
    expect(pids.length).toBeGreaterThan(2)
    await expect(killBrowser(profile)).rejects.toThrow('no browser runs')
    const after = await openProfile(profile)
    const again = after.pages()[0] ?? (await after.newPage())
    await again.goto(origin)
    expect(await again.evaluate(count)).toBe(2)
    await after.close()
    server.close()
  },
)
