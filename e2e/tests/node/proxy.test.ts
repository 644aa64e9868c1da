import { Agent, createServer, type IncomingMessage, request, type Server } from 'node:http'
import { connect, createServer as createTcpServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { listen } from '../../ground/ports.js'
import { type Proxy, startProxy } from '../../ground/proxy.js'

interface Received {
  method: string
  url: string
  readonly body: Buffer
  /** How the request's body ended at the server; null: not yet. */
  end: 'whole' | 'aborted' | null
}

interface Target {
  server: Server
  port: number
  received: Received[]
}

/** Answers 200 and how many bytes came; for `GET /big?n` that many bytes. */
async function startTarget(name = 'target'): Promise<Target> {
  const received: Received[] = []
  const server = createServer((req, res) => {
    const chunks: Buffer[] = []
    const entry: Received = {
      method: req.method ?? '',
      url: req.url ?? '',
      get body() {
        return Buffer.concat(chunks)
      },
      end: null,
    }
    received.push(entry)
    req.on('data', (chunk: Buffer) => chunks.push(chunk))
    req.on('error', () => {})
    req.on('close', () => (entry.end ??= req.complete ? 'whole' : 'aborted'))
    req.on('end', () => {
      entry.end = 'whole'
      const big = /^\/big\?(\d+)$/.exec(entry.url)?.[1]
      res.setHeader('x-name', name)
      res.end(big === undefined ? String(entry.body.length) : Buffer.alloc(Number(big), 'b'))
    })
  })
  return { server, port: await listen(server), received }
}

let target: Target
let proxy: Proxy
let agent: Agent

beforeEach(async () => {
  target = await startTarget()
  proxy = await startProxy({ targetPort: target.port })
  agent = new Agent({ keepAlive: true, maxSockets: 1 })
})
afterEach(async () => {
  agent.destroy()
  await proxy.close()
  target.server.closeAllConnections()
  await new Promise((resolve) => target.server.close(resolve))
})

type Outcome = { status: number; body: string; headers: IncomingMessage['headers'] } | { error: string }

interface SendOptions {
  method?: string
  path?: string
  body?: Buffer
  fresh?: boolean
  timeoutMs?: number
}

/** One request; with `fresh` on a connection of its own. Errors by their code; `timeout` when nothing came. */
function send({ method = 'PUT', path = '/', body, fresh = false, timeoutMs = 10_000 }: SendOptions = {}) {
  return new Promise<Outcome>((resolve) => {
    const req = request(proxy.origin + path, { method, agent: fresh ? false : agent })
    const timer = setTimeout(() => {
      resolve({ error: 'timeout' })
      req.destroy()
    }, timeoutMs)
    const done = (outcome: Outcome): void => {
      clearTimeout(timer)
      resolve(outcome)
    }
    req.on('error', (error: NodeJS.ErrnoException) => done({ error: error.code ?? error.message }))
    req.on('response', (res) => {
      const chunks: Buffer[] = []
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', (error: NodeJS.ErrnoException) => done({ error: error.code ?? error.message }))
      res.on('end', () =>
        done({ status: res.statusCode ?? 0, body: Buffer.concat(chunks).toString(), headers: res.headers }),
      )
    })
    req.end(body)
  })
}

async function until(holds: () => boolean, withinMs = 3000): Promise<void> {
  const endMs = performance.now() + withinMs
  while (!holds()) {
    if (performance.now() > endMs) throw new Error('it did not come true in time')
    await sleep(5)
  }
}

const MIB = 1_048_576
const bytes = (n: number, fill = 'a'): Buffer => Buffer.alloc(n, fill)

describe('without faults', () => {
  test('passes requests and answers unchanged and records them', async () => {
    const outcome = await send({ method: 'PATCH', path: '/x?y', body: bytes(300_000) })
    expect(outcome).toMatchObject({ status: 200, body: '300000', headers: { 'x-name': 'target' } })
    expect(target.received[0]).toMatchObject({ method: 'PATCH', url: '/x?y', end: 'whole' })
    expect(target.received[0]?.body.equals(bytes(300_000))).toBe(true)
    await until(() => proxy.requests[0]?.answered ?? false)
    expect(proxy.requests).toHaveLength(1)
    expect(proxy.requests[0]).toMatchObject({
      method: 'PATCH',
      path: '/x?y',
      connection: 1,
      nth: 1,
      bodyBytes: 300_000,
      forwardedBodyBytes: 300_000,
      complete: true,
      status: 200,
      answerBytes: 6,
      answered: true,
      fault: null,
    })
    expect(proxy.requests[0]?.headers['content-length']).toBe('300000')
    expect(proxy.requests[0]?.answerStart.toString()).toBe('300000')
    expect(proxy.requests[0]?.bodyStart.length).toBe(4096)
    expect(proxy.bodyBytes()).toBe(300_000)
  })

  test('counts the requests of a kept-alive connection and the bytes of each connection', async () => {
    await send({ body: bytes(10) })
    await send({ body: bytes(20) })
    await send({ body: bytes(30), fresh: true })
    expect(proxy.requests.map(({ connection, nth }) => [connection, nth])).toEqual([
      [1, 1],
      [1, 2],
      [2, 1],
    ])
    const [first, second] = proxy.connections
    expect(first).toMatchObject({ requests: 2, open: true })
    await until(() => !(second?.open ?? true))
    expect(proxy.bytes.up).toBe((first?.upBytes ?? 0) + (second?.upBytes ?? 0))
    expect(proxy.bytes.down).toBe((first?.downBytes ?? 0) + (second?.downBytes ?? 0))
    proxy.forget()
    expect([proxy.requests.length, proxy.connections.length, proxy.bytes]).toEqual([0, 0, { up: 0, down: 0 }])
  })

  test('passes large bodies both ways', async () => {
    expect(await send({ body: bytes(20 * MIB) })).toMatchObject({ status: 200, body: String(20 * MIB) })
    const down = await send({ method: 'GET', path: `/big?${20 * MIB}` })
    expect('body' in down && down.body === 'b'.repeat(20 * MIB)).toBe(true)
  })

  test('passes a chunked body, and what is not HTTP', async () => {
    const socket = connect(proxy.port, '127.0.0.1')
    socket.write('PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel')
    await sleep(20)
    socket.write('lo\r\n0\r\n\r\n')
    await until(() => target.received[0]?.end === 'whole')
    expect(target.received[0]?.body.toString()).toBe('hello')
    expect(proxy.requests[0]?.bodyBytes).toBe(5)
    socket.destroy()
    const other = connect(proxy.port, '127.0.0.1')
    other.write('nonsense\r\n\r\n')
    const answer = await new Promise<Buffer>((resolve) => other.on('data', resolve))
    expect(answer.toString()).toMatch(/^HTTP\/1.1 400/)
    other.destroy()
  })

  test('goes to another port after retarget', async () => {
    await send()
    const second = await startTarget('second')
    proxy.retarget(second.port)
    expect(await send({ fresh: true })).toMatchObject({ headers: { 'x-name': 'second' } })
    expect(second.received).toHaveLength(1)
    second.server.closeAllConnections()
    second.server.close()
  })

  test('resets when nobody listens behind it', async () => {
    proxy.retarget(1)
    expect(await send({ fresh: true })).toEqual({ error: 'ECONNRESET' })
  })

  test('does not read on while the server does not', async () => {
    const slow = createServer(() => {}) // never reads a body
    proxy.retarget(await listen(slow))
    const req = request(proxy.origin, { method: 'PUT', agent: false })
    req.on('error', () => {})
    req.end(bytes(64 * MIB))
    await sleep(500)
    const heldBytes = proxy.bytes.up
    await sleep(300)
    expect(proxy.bytes.up).toBe(heldBytes)
    expect(heldBytes).toBeLessThan(16 * MIB)
    req.destroy()
    slow.closeAllConnections()
    slow.close()
  })
})

describe('rate and latency', () => {
  test('a rate holds for uploads, smoothly, and can be lifted', async () => {
    proxy.setRate({ up: MIB })
    const startMs = performance.now()
    const sending = send({ body: bytes(4 * MIB), fresh: true })
    const seen: number[] = []
    for (let i = 0; i < 10; i += 1) {
      await sleep(100)
      seen.push(proxy.bytes.up)
    }
    const passedMs = performance.now() - startMs
    expect(proxy.bytes.up / passedMs / (MIB / 1000)).toBeGreaterThan(0.8)
    expect(proxy.bytes.up / passedMs / (MIB / 1000)).toBeLessThan(1.15)
    // No step of a tenth of a second brings more than a third of a second's worth.
    for (const [i, now] of seen.entries()) expect(now - (seen[i - 1] ?? 0)).toBeLessThan(MIB / 3)
    proxy.setRate(null)
    expect(await sending).toMatchObject({ status: 200 })
    expect(performance.now() - startMs).toBeLessThan(3000)
  })

  test('a rate holds for downloads', async () => {
    proxy.setRate({ down: 2 * MIB })
    const startMs = performance.now()
    await send({ method: 'GET', path: `/big?${MIB}` })
    const tookMs = performance.now() - startMs
    expect(tookMs).toBeGreaterThan(420)
    expect(tookMs).toBeLessThan(900)
  })

  test('two connections share the rate', async () => {
    proxy.setRate(MIB)
    const startMs = performance.now()
    await Promise.all([send({ body: bytes(MIB / 2), fresh: true }), send({ body: bytes(MIB / 2), fresh: true })])
    const tookMs = performance.now() - startMs
    expect(tookMs).toBeGreaterThan(850)
    expect(tookMs).toBeLessThan(1500)
  })

  test('latency delays each direction and does not lower the throughput', async () => {
    proxy.setLatency(100)
    const startMs = performance.now()
    await send({ method: 'GET' })
    expect(performance.now() - startMs).toBeGreaterThan(195)
    const bigMs = performance.now()
    await send({ body: bytes(4 * MIB) })
    expect(performance.now() - bigMs).toBeLessThan(2500)
  })
})

describe('cut', () => {
  test('a black hole stops both directions, tells nobody, and heals', async () => {
    proxy.setRate({ up: 4 * MIB })
    const sending = send({ body: bytes(4 * MIB), timeoutMs: 20_000 })
    await proxy.waitFor(({ bodyBytes }) => bodyBytes > MIB)
    proxy.cut()
    await sleep(60)
    const atCut = proxy.bytes.up
    const during = await send({ method: 'GET', fresh: true, timeoutMs: 300 })
    expect(during).toEqual({ error: 'timeout' })
    expect(proxy.bytes.up).toBe(atCut)
    expect(target.received[0]?.end).toBe(null)
    proxy.heal()
    expect(await sending).toMatchObject({ status: 200, body: String(4 * MIB) })
    expect(await send({ method: 'GET', fresh: true })).toMatchObject({ status: 200 })
  })

  test('the server does not learn of a client that left during the cut before it heals', async () => {
    proxy.setRate({ up: MIB })
    const req = request(proxy.origin, { method: 'PUT', agent: false })
    req.on('error', () => {})
    req.end(bytes(64 * MIB)) // more than the kernel's buffers take after the client is gone
    await proxy.waitFor(({ bodyBytes }) => bodyBytes > 100_000)
    proxy.cut()
    await sleep(100)
    req.destroy()
    await sleep(200)
    expect(target.received[0]?.end).toBe(null)
    proxy.setRate(null)
    proxy.heal()
    await until(() => target.received[0]?.end === 'aborted')
  })

  test('with reset, what is open and what is new are reset until it heals', async () => {
    proxy.setRate({ up: MIB })
    const sending = send({ body: bytes(2 * MIB) })
    await proxy.waitFor(({ bodyBytes }) => bodyBytes > 100_000)
    proxy.cut('reset')
    expect(await sending).toHaveProperty('error')
    expect(await send({ method: 'GET', fresh: true })).toEqual({ error: 'ECONNRESET' })
    proxy.heal()
    proxy.setRate(null)
    expect(await send({ method: 'GET', fresh: true })).toMatchObject({ status: 200 })
    expect(target.received[0]?.end).toBe('aborted')
  })
})

describe('connections', () => {
  test('are reset on demand, both sides', async () => {
    proxy.setRate({ up: MIB })
    const sending = send({ body: bytes(2 * MIB) })
    await proxy.waitFor(({ bodyBytes }) => bodyBytes > 100_000)
    expect(proxy.resetConnections()).toBe(1)
    expect(await sending).toHaveProperty('error')
    await until(() => target.received[0]?.end === 'aborted')
    expect(proxy.resetConnections()).toBe(0)
  })

  test('are closed on demand, and only those that are meant', async () => {
    await send()
    expect(proxy.closeConnections(({ connection }) => connection === 2)).toBe(0)
    expect(proxy.closeConnections(({ requests }) => requests === 1)).toBe(1)
    await until(() => !(proxy.connections[0]?.open ?? true))
    expect(await send()).toMatchObject({ status: 200 })
    expect(proxy.requests[1]).toMatchObject({ connection: 2, nth: 1 })
  })
})

describe('armed faults', () => {
  test.for([
    ['reset', 'ECONNRESET'],
    ['fin', 'ECONNRESET'], // Node names a connection closed before the answer so, too
  ] as const)('%s without a byte count: nothing of the request reaches the server', async ([kind, code]) => {
    const armed = proxy.arm({ kind })
    expect(await send({ body: bytes(5000) })).toEqual({ error: code })
    expect(armed.matched).toHaveLength(1)
    expect(target.received).toHaveLength(0)
    expect(await send({ body: bytes(5000) })).toMatchObject({ status: 200 })
  })

  test('after N bytes of the body the server has exactly N', async () => {
    for (const [i, n] of [0, 1, 70_000, 500_000].entries()) {
      proxy.arm({ kind: 'reset', afterBodyBytes: n, upstream: 'fin' })
      expect(await send({ body: bytes(MIB) })).toHaveProperty('error')
      await until(() => target.received[i]?.end === 'aborted')
      expect(target.received[i]?.body.length).toBe(n)
      expect(proxy.requests.at(-1)).toMatchObject({ forwardedBodyBytes: n, fault: 'reset', complete: false })
    }
  })

  test('the client sees RST with reset and FIN with fin', async () => {
    const seen: string[] = []
    for (const kind of ['reset', 'fin'] as const) {
      proxy.arm({ kind, afterBodyBytes: 10 })
      const socket = connect(proxy.port, '127.0.0.1')
      socket.on('error', (error: NodeJS.ErrnoException) => seen.push(error.code ?? ''))
      socket.on('end', () => seen.push('end'))
      socket.resume()
      socket.write(`PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n${'x'.repeat(20)}`)
      await new Promise((resolve) => socket.on('close', resolve))
    }
    expect(seen).toEqual(['ECONNRESET', 'end'])
  })

  test('strikes on a kept-alive connection only, when the match says so', async () => {
    proxy.arm({ kind: 'reset' }, { match: ({ nth }) => nth > 1 })
    expect(await send()).toMatchObject({ status: 200 })
    expect(await send({ fresh: true })).toMatchObject({ status: 200 })
    expect(await send()).toEqual({ error: 'ECONNRESET' })
  })

  test('strikes as often as it was armed for, or until released', async () => {
    proxy.arm({ kind: 'reset' }, { times: 2 })
    for (let i = 0; i < 2; i += 1) expect(await send()).toHaveProperty('error')
    expect(await send()).toMatchObject({ status: 200 })
    const forever = proxy.arm({ kind: 'reset' }, { match: ({ method }) => method === 'PUT', times: Infinity })
    for (let i = 0; i < 5; i += 1) expect(await send()).toHaveProperty('error')
    expect(await send({ method: 'GET' })).toMatchObject({ status: 200 })
    forever.release()
    expect(await send()).toMatchObject({ status: 200 })
    expect(forever.matched).toHaveLength(5)
  })

  test('upstream keep: the server goes on waiting for the rest until it is released', async () => {
    const armed = proxy.arm({ kind: 'reset', afterBodyBytes: 1000, upstream: 'keep' })
    expect(await send({ body: bytes(5000) })).toHaveProperty('error')
    await sleep(100)
    expect(target.received[0]).toMatchObject({ end: null })
    expect(target.received[0]?.body.length).toBe(1000)
    armed.release()
    await until(() => target.received[0]?.end === 'aborted')
  })

  test('swallow-answer: the server has done it, the client sees a reset', async () => {
    proxy.arm({ kind: 'swallow-answer' })
    expect(await send({ body: bytes(100_000) })).toEqual({ error: 'ECONNRESET' })
    expect(target.received[0]).toMatchObject({ end: 'whole' })
    expect(target.received[0]?.body.length).toBe(100_000)
    expect(proxy.requests[0]).toMatchObject({ status: 200, answered: false, answerBytes: 6, complete: true })
    expect(proxy.connections[0]?.downBytes).toBe(0)
  })

  test('swallow-answer with fin or a black hole', async () => {
    proxy.arm({ kind: 'swallow-answer', ending: 'fin' })
    expect(await send()).toEqual({ error: 'ECONNRESET' })
    const armed = proxy.arm({ kind: 'swallow-answer', ending: 'black-hole' })
    expect(await send({ timeoutMs: 300 })).toEqual({ error: 'timeout' })
    armed.release()
    expect(target.received.map(({ end }) => end)).toEqual(['whole', 'whole'])
  })

  test('black-hole: the connection stays open, for the server too, until it is released', async () => {
    const armed = proxy.arm({ kind: 'black-hole', afterBodyBytes: 1000 })
    const sending = send({ body: bytes(8 * MIB) })
    await proxy.waitFor(({ bodyBytes }) => bodyBytes > 1000)
    await sleep(200)
    const readBytes = proxy.bytes.up
    await sleep(100)
    expect(proxy.bytes.up).toBe(readBytes)
    expect(readBytes).toBeLessThan(200_000)
    expect(target.received[0]).toMatchObject({ end: null })
    expect(target.received[0]?.body.length).toBe(1000)
    expect(await send({ method: 'GET', fresh: true })).toMatchObject({ status: 200 })
    armed.release()
    expect(await sending).toEqual({ error: 'ECONNRESET' })
    await until(() => target.received[0]?.end === 'aborted')
  })

  test('black-hole with reading: the bytes are taken and lost', async () => {
    const armed = proxy.arm({ kind: 'black-hole', afterBodyBytes: 1000, reading: true })
    const sending = send({ body: bytes(8 * MIB), timeoutMs: 2000 })
    await proxy.waitFor(({ bodyBytes }) => bodyBytes === 8 * MIB)
    expect(target.received[0]?.body.length).toBe(1000)
    armed.release()
    expect(await sending).toEqual({ error: 'ECONNRESET' })
  })

  test('answer: the proxy answers itself, the connection stays usable, nothing reaches the server', async () => {
    const armed = proxy.arm(
      { kind: 'answer', status: 403, headers: { 'content-type': 'text/html' }, body: '<h1>No</h1>' },
      { times: Infinity },
    )
    const outcome = await send({ body: bytes(100_000) })
    expect(outcome).toMatchObject({ status: 403, body: '<h1>No</h1>', headers: { 'content-type': 'text/html' } })
    expect(target.received).toHaveLength(0)
    expect(proxy.requests[0]).toMatchObject({ status: 403, bodyBytes: 100_000, forwardedBodyBytes: 0, answered: true })
    armed.release()
    expect(await send({ body: bytes(10) })).toMatchObject({ status: 200 })
    expect(proxy.requests[1]).toMatchObject({ connection: 1, nth: 2 })
  })

  test('answer: a client that keeps its body back until it is told to go on is told so', async () => {
    proxy.arm({ kind: 'answer', status: 500 })
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { Expect: '100-continue', 'Content-Length': '100000' }
      const req = request(proxy.origin, { method: 'PUT', agent, headers })
      req.on('continue', () => req.end(bytes(100_000)))
      req.on('response', (res) => resolve(res.resume().statusCode))
      req.on('error', reject)
      req.flushHeaders()
    })
    expect(status).toBe(500)
    expect(proxy.requests[0]).toMatchObject({ status: 500, bodyBytes: 100_000, forwardedBodyBytes: 0, answered: true })
  })

  test('answer: what HEAD is answered has no body, and the connection stays usable', async () => {
    proxy.arm({ kind: 'answer', status: 503, body: '<h1>No</h1>' })
    expect(await send({ method: 'HEAD' })).toMatchObject({ status: 503, body: '' })
    expect(await send({ body: bytes(10) })).toMatchObject({ status: 200 })
    expect(proxy.requests[1]).toMatchObject({ connection: 1, nth: 2 })
  })

  test('delay: the request waits', async () => {
    proxy.arm({ kind: 'delay', ms: 200 })
    const startMs = performance.now()
    const sending = send({ body: bytes(10) })
    await proxy.waitFor(() => true)
    await sleep(100)
    expect(target.received).toHaveLength(0)
    expect(await sending).toMatchObject({ status: 200, body: '10' })
    expect(performance.now() - startMs).toBeGreaterThan(195)
  })
})

test('several targets have new connections in turn, and without any they are reset', async () => {
  const second = await startTarget('second')
  proxy.retarget([target.port, second.port])
  const names = []
  for (let n = 0; n < 4; n += 1) {
    const outcome = await send({ fresh: true })
    names.push('headers' in outcome ? outcome.headers['x-name'] : outcome.error)
  }
  expect(names).toEqual(['target', 'second', 'target', 'second'])
  expect(proxy.connections.map(({ targetPort }) => targetPort)).toEqual(
    [0, 1].flatMap(() => [target.port, second.port]),
  )
  proxy.retarget([])
  expect(await send({ fresh: true })).toEqual({ error: 'ECONNRESET' })
  await new Promise((resolve) => second.server.close(resolve))
})

test('of another protocol, what is said to chosen bytes is lost after they came in whole', async () => {
  const came: string[] = []
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (said) => {
      came.push(said.toString('latin1'))
      socket.write('done')
    })
  })
  // No line end in it: as HTTP it would be waited for.
  const opaque = await startProxy({ targetPort: await listen(server), protocol: 'opaque' })
  const say = (words: string): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(opaque.port, '127.0.0.1', () => socket.write(words))
      socket.on('data', (answer) => {
        resolve(answer.toString())
        socket.destroy()
      })
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''))
    })
  const armed = opaque.loseAnswers((sent) => sent.includes('commit'), 1)
  expect([await say('\0begin'), await say('\0commit'), await say('\0commit')]).toEqual(['done', 'ECONNRESET', 'done'])
  expect(came).toEqual(['\0begin', '\0commit', '\0commit'])
  expect(armed.struck).toBe(1)

  const met: string[] = []
  const { release } = opaque.intercept((sent) => {
    const at = sent.includes('never') ? 'request' : sent.includes('heard') ? 'answer' : null
    return at === null ? null : { at, strike: () => (met.push(`${at} ${came.at(-1)}`), 'silence') }
  })
  const unanswered = Promise.race([say('\0never'), say('\0heard')])
  expect(await Promise.race([unanswered, sleep(300, 'nothing')])).toBe('nothing')
  expect(met.toSorted()).toEqual(['answer \0heard', 'request \0commit'])
  release()
  expect(await say('\0never')).toBe('done')
  await opaque.close()
  await new Promise((resolve) => server.close(resolve))
})

test('stranded connections hear nothing and are not ended, the server sees a reset, and new ones pass', async () => {
  const ended: (string | null)[] = []
  const server = createTcpServer((socket) => {
    socket.on('error', (error: NodeJS.ErrnoException) => ended.push(error.code ?? null))
    socket.on('data', (said) => socket.write(said))
  })
  const opaque = await startProxy({ targetPort: await listen(server), protocol: 'opaque' })
  const open = async () => {
    const heard: string[] = []
    let isEnded = false
    const socket = connect(opaque.port, '127.0.0.1')
    socket.on('data', (answer) => heard.push(answer.toString()))
    socket.on('error', () => {})
    socket.on('close', () => (isEnded = true))
    socket.write('a')
    while (heard.length === 0) await sleep(5)
    return { socket, heard, isEnded: () => isEnded }
  }
  const [old, another] = [await open(), await open()]
  expect(opaque.strandConnections()).toBe(2)
  old.socket.write('b')
  await sleep(200)
  expect([old.heard, old.isEnded(), another.isEnded()]).toEqual([['a'], false, false])
  expect(ended).toEqual(['ECONNRESET', 'ECONNRESET'])
  expect((await open()).heard).toEqual(['a'])
  await opaque.close()
  await sleep(50)
  expect(old.isEnded()).toBe(true)
  await new Promise((resolve) => server.close(resolve))
})

test('waitFor names what it saw when it waited in vain', async () => {
  await send({ body: bytes(3) })
  await expect(proxy.waitFor(({ status }) => status === 500, 50)).rejects.toThrow('PUT / 3 B → 200')
})
