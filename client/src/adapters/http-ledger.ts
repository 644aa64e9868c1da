import {
  operationPath,
  OPERATIONS,
  type Operation,
  parseOperation,
  parseOperationList,
  parsePrefix,
  type Parsed,
  prefixPath,
} from '@landfall/shared'
import { linked } from '../live.js'
import type { Answer, Clock, Ledger } from '../ports.js'
import type { Authorization } from './authorization.js'
import { jsonOf, noAnswer, refusalOf } from './refusal.js'

/** PUT drives for up to 5 s; the rest is for slow networks. */
const REQUEST_MS = 30_000
/** Beside the time that the server was asked to wait. */
const LIST_MARGIN_MS = 15_000
/** The server reads everything that it has accepted. */
const PREFIX_MS = 300_000

interface Request {
  method: string
  path: string
  timeoutMs: number
  body?: unknown
  etag?: string | null
}

/** An answer about another operation is none: a cache or a proxy mixed them up. */
const operationOf =
  (id: string) =>
  (body: unknown): Parsed<Operation> => {
    const parsed = parseOperation(body)
    return parsed.ok && parsed.value.id !== id ? { ok: false, detail: 'id' } : parsed
  }

/** The operations over `fetch`. `endpoint` without a slash at its end. */
export function createHttpLedger(options: {
  endpoint: string
  credentials: RequestCredentials
  authorization: Authorization
  clock: Clock
}): Ledger {
  const { endpoint, credentials, authorization, clock } = options

  const fetchText = async (request: Request, signal: AbortSignal) => {
    const { headers, asked } = await authorization.read(signal)
    if (request.body !== undefined) headers.push(['Content-Type', 'application/json'])
    if (request.etag) headers.push(['If-None-Match', request.etag])
    const response = await fetch(endpoint + request.path, {
      method: request.method,
      headers,
      credentials,
      signal,
      cache: 'no-store',
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
    })
    return { response, text: await response.text(), asked }
  }

  /** `parse` gets the body of a 2xx, or null for 304. */
  const ask = async <T>(
    request: Request,
    parse: (body: unknown, response: Response) => Parsed<T>,
    outer: AbortSignal,
  ): Promise<Answer<T>> => {
    const within = linked(outer)
    void clock.sleep(request.timeoutMs, within.signal).then(() => within.abort())
    try {
      const { response, text, asked } = await fetchText(request, within.signal)
      const isUnchanged = response.status === 304
      if (response.ok || isUnchanged) {
        const parsed = parse(isUnchanged ? null : jsonOf(text), response)
        if (parsed.ok) {
          authorization.accepted()
          return parsed
        }
      }
      const wallMs = clock.wallMs()
      const refusal = refusalOf(response.status, jsonOf(text), response.headers.get('Retry-After'), wallMs)
      return response.status === 401 && authorization.refused(asked) ? { ...refusal, retryAfterMs: 0 } : refusal
    } catch {
      return noAnswer
    } finally {
      within.unlink()
      within.abort()
    }
  }

  return {
    put: (id, body, signal) =>
      ask({ method: 'PUT', path: operationPath(id), timeoutMs: REQUEST_MS, body }, operationOf(id), signal),
    cancel: (id, signal) =>
      ask({ method: 'DELETE', path: operationPath(id), timeoutMs: REQUEST_MS }, operationOf(id), signal),
    prefix: (id, signal) => ask({ method: 'GET', path: prefixPath(id), timeoutMs: PREFIX_MS }, parsePrefix, signal),
    list: (ids, { waitSeconds, etag }, signal) =>
      ask(
        {
          method: 'GET',
          path: `${OPERATIONS}?ids=${ids.join(',')}&wait=${waitSeconds}`,
          timeoutMs: waitSeconds * 1000 + LIST_MARGIN_MS,
          etag,
        },
        (body, response) => {
          if (body === null && response.status === 304) return { ok: true, value: { operations: null, etag } }
          const parsed = parseOperationList(body)
          const value = { operations: parsed.ok ? parsed.value.operations : null, etag: response.headers.get('ETag') }
          return parsed.ok ? { ok: true, value } : parsed
        },
        signal,
      ),
  }
}
