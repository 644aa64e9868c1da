/**
 * What a real browser does on a broken line, seen through our proxy. Landfall is built on these observations; when a
 * browser changes its ways, it is noticed here.
 */
import { createServer } from 'node:http'
import { expect, test as base } from '@playwright/test'
import { listen } from '../../ground/ports.js'
import { type Proxy, startProxy } from '../../ground/proxy.js'

const MIB = 1_048_576

/** A page, and a server behind the proxy that answers a PUT with the number of bytes that it brought. */
const test = base.extend<{ line: Proxy }>({
  async line({ page }, use) {
    const server = createServer((req, res) => {
      let bytes = 0
      req.on('data', (chunk: Buffer) => (bytes += chunk.length))
      req.on('error', () => {})
      req.on('end', () => {
        res.setHeader('content-type', 'text/html')
        res.end(req.method === 'PUT' ? String(bytes) : '<title>x</title><link rel="icon" href="data:,">')
      })
    })
    const proxy = await startProxy({ targetPort: await listen(server) })
    await page.goto(proxy.origin)
    await use(proxy)
    await proxy.close()
    server.closeAllConnections()
    server.close()
  },
})

/** In the page: one PUT by XMLHttpRequest; what it came to. */
function put(sizeBytes: number): Promise<string> {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest()
    request.open('PUT', '/put')
    request.addEventListener('load', () => resolve(`${request.status} ${request.responseText}`))
    request.addEventListener('error', () => resolve('error'))
    request.send(new Uint8Array(sizeBytes))
  })
}

const isPut = ({ method }: { method: string }): boolean => method === 'PUT'

test('a reset kept-alive connection makes Chromium send the whole request again, unseen by the page', async ({
  page,
  line,
}) => {
  const armed = line.arm(
    { kind: 'reset', afterBodyBytes: 100_000 },
    { match: ({ method, nth }) => method === 'PUT' && nth > 1 },
  )
  expect(await page.evaluate(put, MIB)).toBe(`200 ${MIB}`)
  expect(armed.matched).toHaveLength(1)
  const puts = line.requests.filter(isPut)
  expect(puts).toHaveLength(2)
  expect(puts[1]).toMatchObject({ nth: 1, bodyBytes: MIB })
  expect(line.bodyBytes(isPut)).toBeGreaterThan(MIB + 100_000)
})

test('a reset fresh connection is an error at once', async ({ page, line }) => {
  line.closeConnections()
  await expect.poll(() => line.connections.some(({ open }) => open)).toBe(false)
  line.arm({ kind: 'reset', afterBodyBytes: 100_000 }, { match: isPut })
  expect(await page.evaluate(put, MIB)).toBe('error')
  expect(line.requests.filter(isPut)).toMatchObject([{ nth: 1 }])
})

test('a swallowed answer on a kept-alive connection makes the server do it twice', async ({ page, line }) => {
  line.arm({ kind: 'swallow-answer' }, { match: isPut })
  expect(await page.evaluate(put, 1000)).toBe('200 1000')
  expect(line.requests.filter(isPut)).toMatchObject([
    { status: 200, answered: false },
    { status: 200, answered: true },
  ])
})

test('setOffline cuts nothing that is in flight, cut() does', async ({ page, context, line }) => {
  line.setRate({ up: 2 * MIB })
  const first = page.evaluate(put, 2 * MIB)
  await line.waitFor((request) => isPut(request) && request.bodyBytes > 100_000)
  await context.setOffline(true)
  expect(await first).toBe(`200 ${2 * MIB}`)
  await context.setOffline(false)

  const second = page.evaluate(put, 2 * MIB)
  await line.waitFor(
    (request) => isPut(request) && request !== line.requests.find(isPut) && request.bodyBytes > 100_000,
  )
  line.cut()
  await page.waitForTimeout(100)
  const atCut = line.bytes.up
  await page.waitForTimeout(1000)
  expect(line.bytes.up).toBe(atCut)
  line.heal()
  expect(await second).toBe(`200 ${2 * MIB}`)
})

test('the rate holds for what a browser sends, and little runs ahead of it', async ({ page, line }) => {
  line.setRate({ up: MIB })
  const startMs = performance.now()
  expect(await page.evaluate(put, 3 * MIB)).toBe(`200 ${3 * MIB}`)
  const tookMs = performance.now() - startMs
  expect(tookMs).toBeGreaterThan(2800)
  // A busy machine makes it longer, never shorter.
  expect(tookMs).toBeLessThan(12_000)
})
