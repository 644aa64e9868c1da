/**
 * Cuts one direction of an HTTP/1.1 connection into heads and bodies, in whatever slices the bytes arrive. It changes
 * nothing: the raw bytes of all pieces in order are the bytes that were fed. The proxy needs this to stop at an exact
 * byte.
 */
export interface Head {
  /**
   * The three parts of the start line: `PUT`, `/path`, `HTTP/1.1` for a request; `HTTP/1.1`, `204`, `No Content` for a
   * response.
   */
  readonly startLine: readonly [string, string, string]
  /** Names are in lower case. Values of repeated headers are joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
}

export type Piece =
  | { readonly kind: 'head'; readonly head: Head; readonly raw: Buffer }
  /** `bodyBytes` of `raw` are payload. That is all of it, or none if `raw` is the framing of a chunked body. */
  | { readonly kind: 'body'; readonly bodyBytes: number; readonly raw: Buffer }
  /** The message is complete. This piece has no bytes. */
  | { readonly kind: 'end' }
  /** Bytes that are not HTTP/1.x, or not any more. They pass unchanged until the connection ends. */
  | { readonly kind: 'opaque'; readonly raw: Buffer }

/** How the length of a message's body is determined. For a response it depends on the request. */
export type Framing =
  { kind: 'none' } | { kind: 'length'; bytes: number } | { kind: 'chunked' } | { kind: 'until-close' }

export interface HttpStream {
  /**
   * The pieces that these bytes complete. An unfinished head, or an unfinished chunk-size line, is kept until its end
   * arrives.
   */
  feed(bytes: Buffer): Piece[]
  /**
   * Called when the peer has sent FIN. Returns kept bytes as `opaque`, and the end of a body that lasts until the
   * close.
   */
  finish(): Piece[]
}

/** This is generous, because Node refuses heads above 16 KiB. */
const MAX_HEAD_BYTES = 65_536
const EMPTY = Buffer.alloc(0)
const START_LINE = /^(\S+) (\S+)(?: (.*))?$/

type State =
  | { in: 'head' }
  | { in: 'length'; leftBytes: number }
  | { in: 'chunk-size' }
  | { in: 'chunk'; leftBytes: number }
  | { in: 'trailer' }
  | { in: 'until-close' }
  | { in: 'opaque' }

/** For another protocol: all bytes pass as they come. */
export const createOpaqueStream = (): HttpStream => ({
  feed: (raw) => [{ kind: 'opaque', raw }],
  finish: () => [],
})

/** @see RFC 9112 sections 2, 6 and 7 */
export function createHttpStream(framingOf: (head: Head) => Framing): HttpStream {
  let state: State = { in: 'head' }
  let kept: Buffer = EMPTY

  function body(limitBytes: number): Piece & { kind: 'body' } {
    const raw = kept.subarray(0, limitBytes)
    kept = kept.subarray(raw.length)
    return { kind: 'body', bodyBytes: raw.length, raw }
  }

  /** The next line with its line end, or null while it is unfinished. */
  function line(): Buffer | null {
    const end = kept.indexOf(0x0a)
    if (end === -1) return null
    const raw = kept.subarray(0, end + 1)
    kept = kept.subarray(end + 1)
    return raw
  }

  function opaque(): Piece[] {
    state = { in: 'opaque' }
    const raw = kept
    kept = EMPTY
    return raw.length === 0 ? [] : [{ kind: 'opaque', raw }]
  }

  function head(): Piece[] | null {
    // RFC 9112 2.2: an empty line before a message is tolerated. It belongs to the head that follows.
    const start = /^(?:\r?\n)*/.exec(kept.toString('latin1', 0, 8))?.[0].length ?? 0
    const end = kept.indexOf('\r\n\r\n', start)
    if (end === -1) return kept.length > MAX_HEAD_BYTES ? opaque() : null
    const parsed = parseHead(kept.toString('latin1', start, end))
    if (parsed === null) return opaque()
    const raw = kept.subarray(0, end + 4)
    kept = kept.subarray(end + 4)
    const framing = framingOf(parsed)
    const pieces: Piece[] = [{ kind: 'head', head: parsed, raw }]
    if (framing.kind === 'none' || (framing.kind === 'length' && framing.bytes === 0)) pieces.push({ kind: 'end' })
    else state = bodyState(framing)
    return parsed.startLine[1] === '101' ? [...pieces, ...opaque()] : pieces
  }

  function chunkSize(): Piece[] | null {
    const raw = line()
    if (raw === null) return null
    const size = Number.parseInt(raw.toString('latin1'), 16)
    if (Number.isNaN(size)) {
      kept = Buffer.concat([raw, kept])
      return opaque()
    }
    state = size === 0 ? { in: 'trailer' } : { in: 'chunk', leftBytes: size }
    return [{ kind: 'body', bodyBytes: 0, raw }]
  }

  /** The line end after a chunk's data. */
  function chunkEnd(): Piece[] | null {
    const raw = line()
    if (raw === null) return null
    state = { in: 'chunk-size' }
    return [{ kind: 'body', bodyBytes: 0, raw }]
  }

  function trailer(): Piece[] | null {
    const raw = line()
    if (raw === null) return null
    const framing: Piece = { kind: 'body', bodyBytes: 0, raw }
    if (raw.length > 2) return [framing]
    state = { in: 'head' }
    return [framing, { kind: 'end' }]
  }

  function step(): Piece[] | null {
    switch (state.in) {
      case 'head':
        return head()
      case 'length': {
        const piece = body(state.leftBytes)
        state = { in: 'length', leftBytes: state.leftBytes - piece.bodyBytes }
        if (state.leftBytes > 0) return [piece]
        state = { in: 'head' }
        return [piece, { kind: 'end' }]
      }
      case 'chunk-size':
        return chunkSize()
      case 'chunk': {
        if (state.leftBytes === 0) return chunkEnd()
        const piece = body(state.leftBytes)
        state = { in: 'chunk', leftBytes: state.leftBytes - piece.bodyBytes }
        return [piece]
      }
      case 'trailer':
        return trailer()
      case 'until-close':
        return [body(kept.length)]
      case 'opaque':
        return opaque()
      default:
        return state satisfies never
    }
  }

  return {
    feed(bytes) {
      kept = kept.length === 0 ? bytes : Buffer.concat([kept, bytes])
      const pieces: Piece[] = []
      while (kept.length > 0) {
        const next = step()
        if (next === null) break
        pieces.push(...next)
      }
      return pieces
    },
    finish() {
      if (state.in === 'until-close') {
        state = { in: 'head' }
        return [{ kind: 'end' }]
      }
      return opaque()
    },
  }
}

/** @see RFC 9112 section 6.3: a request without a length has no body. */
export function requestFraming(head: Head): Framing {
  return declaredFraming(head) ?? { kind: 'none' }
}

/** @see RFC 9112 section 6.3: a response without a length lasts until the connection closes. */
export function responseFraming(head: Head, requestMethod: string): Framing {
  const status = Number(head.startLine[1])
  if (requestMethod === 'HEAD' || status < 200 || status === 204 || status === 304) return { kind: 'none' }
  return declaredFraming(head) ?? { kind: 'until-close' }
}

function declaredFraming(head: Head): Framing | null {
  if (/\bchunked\s*$/i.test(head.headers['transfer-encoding'] ?? '')) return { kind: 'chunked' }
  const length = head.headers['content-length']
  return length === undefined ? null : { kind: 'length', bytes: Number(length) }
}

function bodyState(framing: Exclude<Framing, { kind: 'none' }>): State {
  switch (framing.kind) {
    case 'length':
      return { in: 'length', leftBytes: framing.bytes }
    case 'chunked':
      return { in: 'chunk-size' }
    case 'until-close':
      return { in: 'until-close' }
    default:
      return framing satisfies never
  }
}

function parseHead(text: string): Head | null {
  const [first = '', ...rest] = text.split('\r\n')
  const match = START_LINE.exec(first)
  const isHttp = match !== null && (/^HTTP\/1\.\d$/.test(match[1] ?? '') || /^HTTP\/1\.\d$/.test(match[3] ?? ''))
  if (!isHttp) return null
  const headers: Record<string, string> = {}
  for (const field of rest) {
    const colon = field.indexOf(':')
    if (colon < 1) return null
    const name = field.slice(0, colon).toLowerCase()
    const value = field.slice(colon + 1).trim()
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`
  }
  return { startLine: [match[1] ?? '', match[2] ?? '', match[3] ?? ''], headers }
}
