import { describe, expect, test } from 'vitest'
import {
  createHttpStream,
  type HttpStream,
  type Piece,
  requestFraming,
  responseFraming,
} from '../../ground/proxy/http-stream.js'

const REQUESTS = [
  'PUT /uploads/operations/1?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Two: a\r\nx-two: b\r\n\r\nhello',
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  'PATCH /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;ext=1\r\nwiki\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n',
  '\r\nPOST /empty HTTP/1.1\r\nContent-Length: 0\r\n\r\n',
  'HEAD /f HTTP/1.0\r\n\r\n',
].join('')

interface Message {
  startLine: string
  headers: Record<string, string>
  body: string
  ended: boolean
}

function collect(stream: HttpStream, chunks: Buffer[], finish = false) {
  const messages: Message[] = []
  const raw: Buffer[] = []
  let opaque = ''
  const pieces: Piece[] = []
  for (const chunk of chunks) pieces.push(...stream.feed(chunk))
  if (finish) pieces.push(...stream.finish())
  for (const piece of pieces) {
    const last = messages.at(-1)
    if (piece.kind !== 'end') raw.push(piece.raw)
    if (piece.kind === 'head') {
      messages.push({ startLine: piece.head.startLine.join(' '), headers: piece.head.headers, body: '', ended: false })
    } else if (piece.kind === 'body' && last !== undefined && piece.bodyBytes > 0) {
      expect(piece.bodyBytes).toBe(piece.raw.length)
      last.body += piece.raw.toString()
    } else if (piece.kind === 'end' && last !== undefined) last.ended = true
    else if (piece.kind === 'opaque') opaque += piece.raw.toString('latin1')
  }
  return { messages, raw: Buffer.concat(raw).toString('latin1'), opaque }
}

const EXPECTED: Message[] = [
  {
    startLine: 'PUT /uploads/operations/1?a=b HTTP/1.1',
    headers: { host: 'x', 'content-length': '5', 'x-two': 'a, b' },
    body: 'hello',
    ended: true,
  },
  { startLine: 'GET / HTTP/1.1', headers: { host: 'x' }, body: '', ended: true },
  {
    startLine: 'PATCH /f HTTP/1.1',
    headers: { 'transfer-encoding': 'chunked' },
    body: 'wiki0123456789',
    ended: true,
  },
  { startLine: 'POST /empty HTTP/1.1', headers: { 'content-length': '0' }, body: '', ended: true },
  { startLine: 'HEAD /f HTTP/1.0', headers: {}, body: '', ended: true },
]

describe('requests', () => {
  const bytes = Buffer.from(REQUESTS)

  test('come out whole when they arrive in one go', () => {
    expect(collect(createHttpStream(requestFraming), [bytes])).toEqual({
      messages: EXPECTED,
      raw: REQUESTS,
      opaque: '',
    })
  })

  test('come out the same when they are split at any byte', () => {
    for (let at = 1; at < bytes.length; at += 1) {
      const split = collect(createHttpStream(requestFraming), [bytes.subarray(0, at), bytes.subarray(at)])
      expect(split, `split at ${at}`).toEqual({ messages: EXPECTED, raw: REQUESTS, opaque: '' })
    }
  })

  test('come out the same when each byte arrives alone', () => {
    const single = Array.from(bytes, (byte) => Buffer.from([byte]))
    expect(collect(createHttpStream(requestFraming), single)).toEqual({ messages: EXPECTED, raw: REQUESTS, opaque: '' })
  })
})

describe('responses', () => {
  const cases: [string, string, string, boolean][] = [
    ['a body of known length', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc', true],
    ['no body to HEAD, whatever its length says', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n', true],
    ['no body with 204 and no reason phrase', 'PATCH', 'HTTP/1.1 204 \r\nUpload-Offset: 3\r\n\r\n', true],
    ['no body with 304', 'GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n', true],
    ['a chunked body', 'GET', 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n', true],
    ['a body that lasts until the close', 'GET', 'HTTP/1.0 200 OK\r\n\r\nabcdef', false],
  ]
  test.for(cases)('have %s', ([, method, text, ended]) => {
    const bytes = Buffer.from(text)
    for (let at = 1; at < bytes.length; at += 1) {
      const chunks = [bytes.subarray(0, at), bytes.subarray(at)]
      const found = collect(
        createHttpStream((head) => responseFraming(head, method)),
        chunks,
      )
      expect(found.messages.map((message) => message.ended)).toEqual([ended])
      expect(found.raw).toBe(text)
    }
    const finished = collect(
      createHttpStream((head) => responseFraming(head, method)),
      [bytes],
      true,
    )
    expect(finished.messages.map((message) => message.ended)).toEqual([true])
  })

  test('an interim response is a message of its own', () => {
    const text = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx'
    const { messages } = collect(
      createHttpStream((head) => responseFraming(head, 'PUT')),
      [Buffer.from(text)],
    )
    expect(messages.map(({ startLine, body }) => [startLine, body])).toEqual([
      ['HTTP/1.1 100 Continue', ''],
      ['HTTP/1.1 200 OK', 'x'],
    ])
  })
})

describe('what is not HTTP/1', () => {
  test.for<[string, string]>([
    ['an unknown start line', 'SSH-2.0-OpenSSH\r\nmore\r\n\r\nand more'],
    ['a bad chunk size', 'PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrest'],
    ['an endless head', `GET / HTTP/1.1\r\nx: ${'y'.repeat(70_000)}`],
  ])('passes unchanged after %s', ([, text]) => {
    const { raw, opaque } = collect(createHttpStream(requestFraming), [Buffer.from(text)], true)
    expect(raw).toBe(text)
    expect(opaque).not.toBe('')
  })

  test('passes unchanged after 101', () => {
    const text = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nanything'
    const found = collect(
      createHttpStream((head) => responseFraming(head, 'GET')),
      [Buffer.from(text)],
    )
    expect(found.opaque).toBe('anything')
    expect(found.raw).toBe(text)
  })
})
