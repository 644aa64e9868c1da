/**
 * A load generator for the benchmark. It runs as a separate process, so that its CPU time is not counted as the
 * server's: `node load.js '{"speak":"tus","origin":"http://127.0.0.1:1234","count":2000,"size":10240,"parallel":16}'`.
 *
 * It prints the line `acknowledged` when all bytes of all uploads are acknowledged, and a last line of JSON
 * (`LoadReport`). It exits with status 1 as soon as one upload fails.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Agent, type ClientRequest, type IncomingHttpHeaders, request } from 'node:http'
import { operationPath, RECOVERY_POINT_HEADER, TUS_RESUMABLE } from '@landfall/shared'
import { pseudoRandomBytes } from '../ground/files.js'
import { quantile } from '../ground/figures.js'
import { ownHeaders, patchHeaders } from './wire.js'

export interface LoadOptions {
  readonly speak: 'tus' | 'landfall' | 'put'
  readonly origin: string
  /** How many files of `size` bytes are uploaded, `parallel` at a time. */
  readonly count: number
  readonly size: number
  readonly parallel: number
  /** Bytes of one PATCH. Default: the whole file. */
  readonly chunk?: number
  /**
   * When the next upload begins. `success` (default): when the server has reported success. `acknowledged`: when all
   * bytes of this upload are acknowledged, while the server still works on it.
   */
  readonly until?: 'acknowledged' | 'success'
}

export interface LoadReport {
  readonly uploads: number
  readonly sizeBytes: number
  /** The time until the last upload has reached the point that `until` names. */
  readonly wallMs: number
  /** The time until the server has reported success for the last upload. */
  readonly successMs: number
  /** From the first request of an upload to the answer that shows the point that `until` names. */
  readonly p50Ms: number
  readonly p99Ms: number
  readonly requests: number
  /** CPU time of the load generator itself. */
  readonly loadCpuMs: number
}

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

interface Wanted {
  readonly sizeBytes: number
  /** Bytes of one PATCH. */
  readonly chunkBytes: number
  /** The upload calls it when all its bytes are acknowledged. */
  acknowledged(): void
}

type Upload = (client: HttpClient, wanted: Wanted) => Promise<void>

const OWNER = { 'x-owner': 'bench' }
const MOUNT = '/uploads'
const BLOCK = pseudoRandomBytes(1_048_576, 'load')

interface HttpClient {
  readonly origin: string
  send(method: string, path: string, headers: Record<string, string>, body: string | number): Promise<Answer>
  readonly requests: number
}

/** `body` is JSON, or the number of bytes to send, taken from a block that is repeated. */
function createHttpClient(origin: string, parallel: number): HttpClient & { close(): void } {
  const { hostname, port } = new URL(origin)
  const agent = new Agent({ keepAlive: true, maxSockets: parallel })
  let requests = 0

  function send(method: string, path: string, headers: Record<string, string>, body: string | number): Promise<Answer> {
    requests += 1
    const length = typeof body === 'number' ? body : Buffer.byteLength(body)
    const all = method === 'GET' ? headers : { ...headers, 'Content-Length': String(length) }
    return new Promise((resolve, reject) => {
      const req = request({ hostname, port, agent, method, path, headers: all })
      req.on('error', reject)
      req.on('response', (res) => {
        let text = ''
        res.setEncoding('utf8')
        res.on('data', (chunk: string) => (text += chunk))
        res.on('error', reject)
        res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: text }))
      })
      if (typeof body === 'string') req.end(body)
      else if (body <= BLOCK.length) req.end(BLOCK.subarray(0, body))
      else writeBlocks(req, body).catch(reject)
    })
  }

  return {
    origin,
    send,
    get requests() {
      return requests
    },
    close: () => agent.destroy(),
  }
}

async function writeBlocks(req: ClientRequest, bytes: number): Promise<void> {
  for (let left = bytes; left > 0; left -= BLOCK.length) {
    if (!req.write(BLOCK.subarray(0, left)) && !req.destroyed) await once(req, 'drain')
  }
  req.end()
}

function expectStatus(answer: Answer, expected: number, what: string): void {
  if (answer.status !== expected) throw new Error(`${what} was answered ${answer.status}: ${answer.body.slice(0, 500)}`)
}

const base64 = (text: string): string => Buffer.from(text).toString('base64')
const METADATA = `filename ${base64('file.bin')},filetype ${base64('application/octet-stream')}`
const TUS = { 'Tus-Resumable': TUS_RESUMABLE }

/** Sends the whole file, and returns the last answer. @see tus 1.0.0, "PATCH" */
async function patchAll(
  client: HttpClient,
  path: string,
  headers: Record<string, string>,
  { sizeBytes, chunkBytes, acknowledged }: Wanted,
): Promise<Answer> {
  for (let offset = 0; ;) {
    const bytes = Math.min(chunkBytes, sizeBytes - offset)
    const answer = await client.send('PATCH', path, { ...headers, ...patchHeaders(offset) }, bytes)
    expectStatus(answer, 204, 'PATCH')
    offset += bytes
    if (answer.headers['upload-offset'] !== String(offset)) throw new Error('PATCH was answered with another offset')
    if (offset === sizeBytes) {
      acknowledged()
      return answer
    }
  }
}

/** Uploads as tus-js-client does: a creation, then PATCH requests. @see tus 1.0.0, "Creation" */
const uploadByTus: Upload = async (client, wanted) => {
  const creation = { ...TUS, 'Upload-Length': String(wanted.sizeBytes), 'Upload-Metadata': METADATA }
  const created = await client.send('POST', '/files', creation, 0)
  expectStatus(created, 201, 'POST')
  await patchAll(client, new URL(created.headers.location ?? '', 'http://x').pathname, {}, wanted)
}

/** Uploads as Landfall's own client does. The upload has succeeded when its operation is `referenced`. */
const uploadByLandfall: Upload = async (client, wanted) => {
  const own = await ownHeaders(client.origin + MOUNT, OWNER)
  const operation = MOUNT + operationPath(randomUUID())
  const file = { name: 'file.bin', size: wanted.sizeBytes, type: 'application/octet-stream' }
  const declared = await client.send(
    'PUT',
    operation,
    { ...own, 'Content-Type': 'application/json' },
    JSON.stringify({ file }),
  )
  if (declared.status !== 201) expectStatus(declared, 200, 'PUT')
  const patched = await patchAll(client, stringOf(declared, 'uploadUrl'), own, wanted)
  if (patched.headers[RECOVERY_POINT_HEADER.toLowerCase()] === 'referenced') return
  for (;;) {
    const found = await client.send('GET', `${operation}?wait=20`, own, 0)
    expectStatus(found, 200, 'GET')
    const point = stringOf(found, 'recoveryPoint')
    if (point === 'referenced' || point === 'completed') return
    if (point === 'rejected' || point === 'cancelled' || point === 'expired') throw new Error(found.body)
  }
}

function stringOf(answer: Answer, field: string): string {
  const parsed: unknown = JSON.parse(answer.body)
  const value = typeof parsed === 'object' && parsed !== null ? Reflect.get(parsed, field) : undefined
  if (typeof value !== 'string') throw new Error(`no ${field} in ${answer.body.slice(0, 500)}`)
  return value
}

const uploadByPut: Upload = async (client, { sizeBytes, acknowledged }) => {
  expectStatus(await client.send('PUT', '/file', {}, sizeBytes), 204, 'PUT')
  acknowledged()
}

const UPLOADS: Readonly<Record<LoadOptions['speak'], Upload>> = {
  tus: uploadByTus,
  landfall: uploadByLandfall,
  put: uploadByPut,
}

type Start = (acknowledged: () => void) => Promise<void>

/** Runs `parallel` uploads at a time until `count` are done, and returns how long each took. */
async function uploadAll(start: Start, count: number, parallel: number, until: 'acknowledged' | 'success') {
  const tookMs: number[] = []
  const successes: Promise<void>[] = []
  let left = count
  async function lane(): Promise<void> {
    while (left > 0) {
      left -= 1
      const startMs = performance.now()
      await new Promise<void>((resolve, reject) => {
        const success = start(until === 'acknowledged' ? resolve : () => {})
        successes.push(success)
        success.then(resolve, reject)
      })
      tookMs.push(performance.now() - startMs)
    }
  }
  await Promise.all(Array.from({ length: Math.min(parallel, count) }, lane))
  return { tookMs, successes: Promise.all(successes) }
}

async function main({ speak, origin, count, size: sizeBytes, parallel, chunk, until }: LoadOptions): Promise<void> {
  const client = createHttpClient(origin, parallel)
  const cpu = process.cpuUsage()
  const startMs = performance.now()
  const wanted = { sizeBytes, chunkBytes: chunk ?? sizeBytes }
  const start: Start = (acknowledged) => UPLOADS[speak](client, { ...wanted, acknowledged })
  const { tookMs, successes } = await uploadAll(start, count, parallel, until ?? 'success')
  const wallMs = performance.now() - startMs
  process.stdout.write('acknowledged\n')
  await successes
  const successMs = performance.now() - startMs
  const { user, system } = process.cpuUsage(cpu)
  client.close()
  tookMs.sort((a, b) => a - b)
  const report: LoadReport = {
    uploads: tookMs.length,
    sizeBytes,
    wallMs,
    successMs,
    p50Ms: quantile(tookMs, 0.5),
    p99Ms: quantile(tookMs, 0.99),
    requests: client.requests,
    loadCpuMs: (user + system) / 1000,
  }
  process.stdout.write(`${JSON.stringify(report)}\n`)
}

await main(JSON.parse(process.argv[2] ?? '') as LoadOptions)
