import { lookup as lookUp } from 'node:dns'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { BlockList, isIPv6, type LookupFunction } from 'node:net'
import { useAgent } from 'request-filtering-agent'
import { Webhook } from 'standardwebhooks'
import type { Delivered, EffectContext, Receiver } from '../kinds/effect.js'
import { UploadError } from '../lib/errors.js'
import { milliseconds, nonEmptyText, optional, readOptions, rule, text, yesOrNo } from '../lib/options.js'

export interface StandardWebhookOptions {
  /** `https:`, or `http:` within your own network. Redirects are not followed. */
  url: string
  /**
   * `whsec_…` (base64), the same as the receiver has. Give several to replace one: the request carries a signature by
   * each, and the receiver accepts any of them. First add the new secret here, then change the receiver, then remove
   * the old one here.
   */
  secret: string | readonly string[]
  /** The event's type in the body. Default `upload.referenced`. */
  type?: string
  /** How long one attempt may take. In milliseconds, default 15,000. */
  timeLimitMs?: number
  /**
   * Allows addresses that are not public (loopback, private, link-local, metadata services). Default false: a URL that
   * another person can choose, or a name that may resolve to something else tomorrow, must not reach into your own
   * network.
   */
  allowPrivateAddresses?: boolean
}

/** A receiver that takes longer gets the request again, under the same id. */
const TIME_LIMIT_MS = 15_000
/** By name: what each option may be, and its default. */
export const OPTIONS = {
  url: text,
  secret: rule<string | readonly string[]>('a text, or a list of texts', (value) =>
    [value].flat().every((secret) => typeof secret === 'string'),
  ),
  type: optional(nonEmptyText, 'upload.referenced'),
  timeLimitMs: optional(milliseconds(1, 10 * 60_000), TIME_LIMIT_MS),
  allowPrivateAddresses: optional(yesOrNo, false),
}
/** A connection is used again for requests that follow within this time. */
const KEEP_ALIVE_MS = 10_000

/**
 * Sends each reference to a receiver in a signed POST (Standard Webhooks). `webhook-id` is the effect's stable id. The
 * request is repeated under this id until it is answered with 2xx. 410 means that the receiver wants no more
 * deliveries. `Retry-After` is respected.
 *
 * The body: `{ "type", "timestamp", "data": { "operation": { id, owner, kind, file, metadata, createdAt }, "reference":
 * { size, type, digest, storedAt, data } } }`, with times as in RFC 3339.
 *
 * @throws UploadError `setup` at once for a URL or a secret that cannot work.
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
export function standardWebhook(given: StandardWebhookOptions): Receiver {
  const options = readOptions('standardWebhook', OPTIONS, given)
  const url = URL.canParse(options.url) ? new URL(options.url) : null
  if (url === null || !['http:', 'https:'].includes(url.protocol))
    throw new UploadError('setup', 'standardWebhook: url must begin with https: or http:')
  const signers = (typeof options.secret === 'string' ? [options.secret] : options.secret).map(signerOf)
  if (signers.length === 0) throw new UploadError('setup', 'standardWebhook: secret: give at least one')
  const { type } = options
  const agent = useAgent(url.href, {
    keepAlive: true,
    timeout: KEEP_ALIVE_MS,
    allowPrivateIPAddress: options.allowPrivateAddresses,
  })
  const open = url.protocol === 'https:' ? requestHttps : requestHttp

  const lookup = options.allowPrivateAddresses ? {} : { lookup: lookUpPublic }

  const post = (body: string, headers: Record<string, string>, signal: AbortSignal): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      // `lookup` is not called for a literal address, so that is checked here.
      const refusal = 'lookup' in lookup ? whyNotGlobal(url.hostname.replace(/^\[|\]$/g, '')) : null
      if (refusal !== null) return reject(refusal)
      const request = open(url, { method: 'POST', agent, signal, headers, ...lookup }, resolve)
      request.on('error', reject)
      request.end(body)
    })

  return {
    type: 'webhook',
    timeLimitMs: options.timeLimitMs,
    async deliver(context) {
      const body = JSON.stringify({ type, timestamp: context.reference.storedAt, data: dataOf(context) })
      const sentAt = new Date()
      const response = await post(
        body,
        {
          'content-type': 'application/json',
          'content-length': String(Buffer.byteLength(body)),
          'user-agent': 'Landfall (Standard Webhooks)',
          'webhook-id': context.effectId,
          'webhook-timestamp': String(Math.floor(sentAt.getTime() / 1000)),
          'webhook-signature': signers.map((signer) => signer.sign(context.effectId, sentAt, body)).join(' '),
        },
        context.signal,
      )
      discard(response)
      return outcomeOf(response, sentAt.getTime())
    },
  }
}

/**
 * The only public IPv6 addresses of the Internet (IANA). Without this, the agent's filter lets `::127.0.0.1` pass, and
 * perhaps more.
 */
const GLOBAL_IPV6 = new BlockList()
GLOBAL_IPV6.addSubnet('2000::', 3, 'ipv6')

const whyNotGlobal = (address: string): Error | null =>
  isIPv6(address) && !GLOBAL_IPV6.check(address, 'ipv6') ? new Error(`the address ${address} is not public`) : null

/** Runs before the agent's own filter, which checks what this one lets pass. */
const lookUpPublic: LookupFunction = (hostname, options, callback) => {
  lookUp(hostname, options, (error, found, family) => {
    const addresses = typeof found === 'string' ? [found] : (found ?? []).map(({ address }) => address)
    const refusal = error ?? addresses.map(whyNotGlobal).find((why) => why !== null) ?? null
    callback(refusal, found, family)
  })
}

function signerOf(secret: string): Webhook {
  try {
    return new Webhook(secret)
  } catch {
    throw new UploadError('setup', 'standardWebhook: secret must be base64, with or without whsec_ before it')
  }
}

const dataOf = ({ operation, reference }: EffectContext<unknown, unknown>): unknown => ({ operation, reference })

/** Only the status matters. A body without an end must not be read permanently. */
const LONGEST_ANSWER_BYTES = 64 * 1024

function discard(response: IncomingMessage): void {
  let bytes = 0
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > LONGEST_ANSWER_BYTES) response.destroy()
  })
  response.on('error', () => {})
}

function outcomeOf({ statusCode = 0, headers }: IncomingMessage, nowMs: number): Delivered {
  if (statusCode >= 200 && statusCode < 300) return { outcome: 'delivered' }
  const detail = `the receiver answered ${statusCode}`
  if (statusCode === 410) return { outcome: 'gone', detail }
  const afterMs = retryAfterMs(headers['retry-after'], nowMs)
  return afterMs === null ? { outcome: 'again', detail } : { outcome: 'again', detail, afterMs }
}

/** RFC 9110, 10.2.3: seconds, or a date. */
function retryAfterMs(value: string | undefined, nowMs: number): number | null {
  if (value === undefined) return null
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000
  const at = Date.parse(value)
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs)
}
