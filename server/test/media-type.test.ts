import { describe, expect, test } from 'vitest'
import { isMediaType, judgeType } from '../src/kinds/media-type.js'

describe('a media type', () => {
  test.each([
    'text/plain',
    'image/svg+xml',
    'text/plain;charset=utf-8',
    'text/plain \t; \tcharset=utf-8;; format="a; \\"b\\"" ; ',
  ])('%j is one', (text) => {
    expect(isMediaType(text)).toBe(true)
  })

  test.each([
    '',
    'text',
    'text/',
    'text/日本',
    'text/plain charset=utf-8',
    'text/plain;charset',
    'text/plain;a="b',
    'text/plain\r\nX: y',
  ])('%j is not one', (text) => {
    expect(isMediaType(text)).toBe(false)
  })

  test.each([';  ', '; a=b', '; a="\\""', ' \t'])('%j is parsed in linear time if it is repeated', (repeated) => {
    // The short text comes first, so that exponential parsing fails the test and does not hang it.
    for (const times of [18, 10_000]) {
      const startedAt = performance.now()
      expect(isMediaType(`text/plain${repeated.repeat(times)}é`)).toBe(false)
      expect(performance.now() - startedAt).toBeLessThan(500)
    }
  })
})

test.each([
  [null, { ok: true, type: 'application/octet-stream' }],
  [['*/*'], { ok: true, type: 'application/octet-stream' }],
  [['text/*'], { ok: false, detail: 'the declared type is no media type' }],
])('a declared type that is not a media type counts as unknown if %j is accepted', async (accept, verdict) => {
  expect(await judgeType(Buffer.from('plain'), 'text/日本', accept)).toEqual(verdict)
})
