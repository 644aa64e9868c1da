import { afterEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import { judgeType } from '../src/kinds/media-type.js'
import type { Tx } from './fixtures.js'
import { newId, startServer, type TestServer } from './harness.js'

const bytes = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'))
const HTML = bytes('<!doctype html><script>alert(1)</script>')
const SVG = bytes('<svg xmlns="http://www.w3.org/2000/svg"/>')
const XML_SVG = bytes('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
const PNG = bytes('\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\0IEND\xaeB`\x82')
const PDF = bytes('%PDF-1.7\n')
const ZIP = bytes('PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txt')
const CFB = bytes('\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0\0\0\0\0')
const WEBM = bytes(
  '\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm',
)
const CSV = bytes('a,b\n1,2\n')

const IMAGES = ['image/*']
const DOCUMENTS = ['application/pdf', 'application/zip', 'audio/*', 'video/*']

describe('the stored type is always an accepted one', () => {
  const rows: readonly (readonly [Uint8Array, string, readonly string[] | null, string | null])[] = [
    // If the bytes have a known signature, it alone decides.
    [PNG, 'image/png', IMAGES, 'image/png'],
    [PNG, '', IMAGES, 'image/png'],
    [PNG, 'image/x-whatever', IMAGES, 'image/png'],
    [PDF, 'image/png', IMAGES, null],
    [PDF, '', DOCUMENTS, 'application/pdf'],
    // HTML that is declared as an image, audio, video, archive or PDF.
    ...[
      '',
      'image/png',
      'image/svg+xml',
      'image/x-whatever',
      'IMAGE/X-Whatever; a=b',
      'image/jpg',
      'application/octet-stream',
    ].map((declared) => [HTML, declared, IMAGES, null] as const),
    ...['', 'application/pdf', 'application/zip', 'application/x-zip-compressed', 'audio/x-whatever', 'video/mp4'].map(
      (declared) => [HTML, declared, DOCUMENTS, null] as const,
    ),
    // Bytes without a signature have the declared type.
    [CSV, 'text/csv', ['text/csv'], 'text/csv'],
    [CSV, 'text/csv; charset=utf-8', ['text/*'], 'text/csv; charset=utf-8'],
    [bytes('{}'), 'application/json', ['application/json'], 'application/json'],
    [bytes('{}'), 'application/geo+json', ['application/geo+json'], 'application/geo+json'],
    [HTML, 'text/html', ['text/*'], 'text/html'],
    [CSV, 'model/stl', ['model/stl'], 'model/stl'],
    [bytes('<a/>'), 'application/xml', ['application/xml'], 'application/xml'],
    [bytes('<a/>'), 'text/xml', ['application/xml'], 'text/xml'],
    [CSV, 'text/csv', ['application/json'], null],
    // SVG is accepted only if it is named.
    [SVG, 'image/svg+xml', IMAGES, null],
    [XML_SVG, 'image/svg+xml', IMAGES, null],
    [SVG, 'image/svg+xml', ['image/*', 'image/svg+xml'], 'image/svg+xml'],
    [XML_SVG, 'image/svg+xml', ['image/svg+xml'], 'image/svg+xml'],
    [SVG, 'image/svg+xml', ['*/*'], 'image/svg+xml'],
    [XML_SVG, 'text/xml', ['image/svg+xml'], null],
    // Formats without a known signature that the application names in full.
    [CSV, 'image/x-tga', ['image/x-tga'], 'image/x-tga'],
    // A missing type means application/octet-stream, which must itself be accepted.
    [CSV, '', ['text/*'], null],
    [CSV, '', ['application/octet-stream'], 'application/octet-stream'],
    [CSV, 'text', ['application/octet-stream'], 'application/octet-stream'],
    [CSV, '', ['*/*'], 'application/octet-stream'],
    [CSV, '', ['application/*'], 'application/octet-stream'],
    [CSV, '', null, 'application/octet-stream'],
    [HTML, 'image/png', null, 'image/png'],
    ...['constructor', '__proto__', 'toString'].map((declared) => [CSV, declared, ['text/*'], null] as const),
    [HTML, 'image/png', ['*/*'], null],
    // Other names of one format.
    [ZIP, 'application/x-zip-compressed', ['application/zip'], 'application/zip'],
    [ZIP, '', ['application/x-zip-compressed'], 'application/zip'],
    [WEBM, 'video/x-matroska', ['video/x-matroska', 'video/webm'], 'video/webm'],
    // The signature of a container format is less exact than the declared type.
    [CFB, 'application/msword', ['application/msword'], 'application/msword'],
    [CFB, 'image/png', ['application/msword'], null],
    [CFB, '', ['application/msword'], null],
    [WEBM, 'audio/webm;codecs=opus', ['audio/*'], 'audio/webm;codecs=opus'],
    [WEBM, 'audio/mpeg', ['audio/*'], null],
    [ZIP, 'application/vnd.own+zip', ['application/vnd.own+zip'], 'application/vnd.own+zip'],
    [ZIP, 'application/epub+zip', ['application/epub+zip'], null],
    [XML_SVG, 'image/svg+xml', null, 'image/svg+xml'],
    [XML_SVG, 'image/svg+xml', ['application/xml'], 'application/xml'],
  ]
  test.each(rows.map(([head, declared, accept, stored], row) => ({ row, head, declared, accept, stored })))(
    'row $row: declared as $declared, accepted $accept, it is stored as $stored',
    async ({ head, declared, accept, stored }) => {
      const verdict = await judgeType(head, declared, accept)
      expect([declared, accept, verdict.ok ? verdict.type : null]).toEqual([declared, accept, stored])
    },
  )
})

describe('through the routes', () => {
  let server: TestServer
  afterEach(() => server.close())

  test.each(['', 'image/svg+xml', 'image/x-whatever', 'image/png', 'text/html', 'image/jpg', 'constructor'])(
    'HTML that is declared as %j gets no reference from a kind of images',
    async (type) => {
      server = await startServer({ photo: kind({ accept: ['image/*'], onReference: async (_tx: Tx) => null }) })
      const id = newId()
      const declared = await server.declare(id, { size: HTML.length, type, name: 'a.html' })
      const early = ['image/svg+xml', 'text/html', 'constructor'].includes(type)
      expect([declared.status, declared.code]).toEqual(early ? [415, 'type-not-accepted'] : [201, undefined])
      if (early) return expect((await server.get(id)).status).toBe(404)
      await server.patch(id, 0, HTML)
      expect(await server.get(id)).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'not-acceptable' } })
    },
  )
})
