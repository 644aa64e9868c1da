import {
  operationPath,
  OPERATIONS,
  type Operation,
  OWNER_TAG_HEADER,
  parseOperation,
  parseOperationList,
  parsePrefix,
  type Parsed,
  prefixPath,
} from '@landfall/shared'
import { linked } from '../live.js'
import type { AskWhose } from '../owner.js'
import type { Answer, Clock, Ledger, Listed, Owner } from '../ports.js'
import type { Authorization } from './authorization.js'
import { jsonOf, noAnswer, refusalOf } from './refusal.js'

/** A PUT drives the operation for up to 5 s. The rest of the time is for slow networks. */
const REQUEST_MS = 30_000
/** In addition to the time that the server was asked to wait. */
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

/** An answer about another operation does not count: a cache or a proxy has mixed up answers. */
const operationOf =
  (id: string) =>
  (body: unknown): Parsed<Operation> => {
    const parsed = parseOperation(body)
    return parsed.ok && parsed.value.id !== id ? { ok: false, detail: 'id' } : parsed
  }

/** The operations over `fetch`, and the question of whose they are. `endpoint` has no slash at its end. */
export function createHttpLedger(options: {
  endpoint: string
  credentials: RequestCredentials
  authorization: Authorization
  clock: Clock
  owner: () => Owner
}): { ledger: Ledger; askWhose: AskWhose } {
  const { endpoint, credentials, authorization, clock } = options

  const fetchText = async (request: Request, tag: string | null, signal: AbortSignal) => {
    const { headers, asked } = await authorization.read(signal)
    if (tag !== null) headers.push([OWNER_TAG_HEADER, tag])
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

  /** `parse` gets the body of a 2xx, or null for a 304. With `tag` null, no owner is pinned yet. */
  const exchange = async <T>(
    request: Request,
    parse: (body: unknown, response: Response) => Parsed<T>,
    tag: string | null,
    outer: AbortSignal,
  ): Promise<Answer<T>> => {
    const within = linked(outer)
    void clock.sleep(request.timeoutMs, within.signal).then(() => within.abort())
    try {
      const { response, text, asked } = await fetchText(request, tag, within.signal)
      const { status, headers } = response
      const isUnchanged = status === 304
      const parsed = response.ok || isUnchanged ? parse(isUnchanged ? null : jsonOf(text), response) : null
      const refused = parsed?.ok ? null : refusalOf(status, jsonOf(text), headers.get('Retry-After'), clock.wallMs())
      const said = headers.get(OWNER_TAG_HEADER)
      const refusal = tag === null ? refused : options.owner().judge(tag, { said, status, refusal: refused })
      if (parsed?.ok && refusal === null) {
        authorization.accepted()
        return parsed
      }
      if (refusal === null) return noAnswer
      if (options.owner().isOther()) authorization.renew()
      return status === 401 && authorization.refused(asked) ? { ...refusal, retryAfterMs: 0 } : refusal
    } catch {
      return noAnswer
    } finally {
      within.unlink()
      within.abort()
    }
  }

  const ask = async <T>(
    request: Request,
    parse: (body: unknown, response: Response) => Parsed<T>,
    signal: AbortSignal,
  ): Promise<Answer<T>> => {
    const tag = await options.owner().read(signal)
    return tag.ok ? exchange(request, parse, tag.value, signal) : tag
  }

  const askWhose: AskWhose = (pinned, signal) =>
    exchange(
      { method: 'GET', path: `${OPERATIONS}?open`, timeoutMs: REQUEST_MS },
      (body, { headers }) => {
        const parsed = parseOperationList(body)
        return parsed.ok ? { ok: true, value: headers.get(OWNER_TAG_HEADER) } : parsed
      },
      pinned,
      signal,
    )

  const ledger: Ledger = {
    put: (id, body, signal) =>
      ask({ method: 'PUT', path: operationPath(id), timeoutMs: REQUEST_MS, body }, operationOf(id), signal),
    cancel: (id, signal) =>
      ask({ method: 'DELETE', path: operationPath(id), timeoutMs: REQUEST_MS }, operationOf(id), signal),
    prefix: (id, signal) => ask({ method: 'GET', path: prefixPath(id), timeoutMs: PREFIX_MS }, parsePrefix, signal),
    list: (ids, { waitSeconds, etag }, signal) =>
      ask<Listed>(
        {
          method: 'GET',
          path: `${OPERATIONS}?ids=${ids.join(',')}&wait=${waitSeconds}`,
          timeoutMs: waitSeconds * 1000 + LIST_MARGIN_MS,
          etag,
        },
        (body, response) => {
          if (body === null && response.status === 304)
            return { ok: true, value: { operations: null, unreadable: [], etag } }
          const parsed = parseOperationList(body)
          return parsed.ok ? { ok: true, value: { ...parsed.value, etag: response.headers.get('ETag') } } : parsed
        },
        signal,
      ),
  }
  return { ledger, askWhose }
}
