import { describe, expect, test } from 'vitest'
import {
  canMove,
  consequenceOf,
  isFinal,
  isOpen,
  isReferenced,
  isWellFormed,
  NEXT,
  parseDeclareRequest,
  parseOperation,
  parseOperationId,
  parseOperationList,
  parsePrefix,
  parseProblem,
  POINTS,
  problem,
  problemCode,
  type ProblemCode,
  PROBLEMS,
} from '../src/index.js'

const ID = '0192f0c1-0000-7000-8000-00000000000a'
const DIGEST = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
const file = { name: 'a.mov', size: 10, type: 'video/quicktime' }
const operation = {
  id: ID,
  kind: 'photo',
  recoveryPoint: 'declared',
  stalled: false,
  file,
  metadata: { album: { id: [1, 'a', null, true] } },
  offset: 0,
  uploadUrl: `/uploads/files/${ID}`,
  digest: null,
  reference: null,
  problem: null,
  createdAt: '2026-11-24T04:33:33.629Z',
  updatedAt: '2026-11-24T04:33:33.629Z',
  expiresAt: null,
}

describe('recovery points', () => {
  test('move only to the right, and every point except an end can move', () => {
    for (const from of POINTS)
      for (const to of POINTS) if (canMove(from, to)) expect(POINTS.indexOf(to)).toBeGreaterThan(POINTS.indexOf(from))
    for (const [point, next] of Object.entries(NEXT))
      expect(next.length > 0).toBe(!['completed', 'cancelled', 'expired', 'rejected'].includes(point))
  })

  test('are open, referenced or final, and only one of these', () => {
    for (const point of POINTS)
      expect([isOpen(point), isReferenced(point), isFinal(point)].filter(Boolean)).toHaveLength(1)
  })

  test('that lack bytes can expire, and those with a reference can neither expire nor be cancelled', () => {
    expect(POINTS.filter((point) => canMove(point, 'expired'))).toEqual(['declared'])
    expect(POINTS.filter((point) => canMove(point, 'cancelled'))).toEqual([
      'declared',
      'received',
      'sealed',
      'verified',
    ])
  })
})

describe('ids', () => {
  test('are UUIDs, without regard to case', () => {
    expect(parseOperationId(ID)).toBe(ID)
    expect(parseOperationId(ID.toUpperCase())).toBe(ID)
  })

  test.each(['', '../x', '/etc/passwd', `${ID}\0`, ` ${ID}`, `${ID}\n`, 'x'.repeat(300), ID.slice(1), null, 7, {}])(
    '%j is none',
    (id) => expect(parseOperationId(id)).toBeNull(),
  )
})

describe('a declaration', () => {
  const good = { kind: 'photo', file, metadata: { a: 1 }, digest: DIGEST }
  test('is read, and what is unknown is ignored', () => {
    expect(parseDeclareRequest({ ...good, more: 1, file: { ...file, more: 2 } })).toEqual({ ok: true, value: good })
    expect(parseDeclareRequest({ file: { ...file, lastModified: 5 }, digest: 'pending' })).toMatchObject({ ok: true })
  })

  test.each([
    [{ ...good, file: { ...file, size: -1 } }, /^file\.size/],
    [{ ...good, file: { ...file, size: 2 ** 53 } }, /^file\.size/],
    [{ ...good, file: { ...file, size: '10' } }, /^file\.size/],
    [{ ...good, file: { ...file, name: 'a\tb' } }, /^file\.name/],
    [{ ...good, file: { ...file, name: 'x'.repeat(1025) } }, /^file\.name/],
    [{ ...good, digest: 'sha-256=:abc:' }, /^digest/],
    [{ ...good, digest: 'md5=:abc:' }, /^digest/],
    [{ ...good, metadata: [] }, /^metadata/],
    [{ ...good, metadata: { a: Number.NaN } }, /^metadata/],
    [{ ...good, metadata: { a: undefined } }, /^metadata/],
    [{ ...good, metadata: JSON.parse(`${'{"a":'.repeat(40)}1${'}'.repeat(40)}`) as object }, /^metadata/],
    [{ ...good, kind: '' }, /^kind/],
    // Half of an emoji. UTF-8 cannot hold it, so a database returns another text.
    [{ ...good, kind: 'a\ud83c' }, /^kind/],
    [{ ...good, file: { ...file, name: '\ud83c.txt' } }, /^file\.name.*well formed/],
    [{ ...good, file: { ...file, name: '\udf0d\ud83c.txt' } }, /^file\.name.*well formed/],
    [{ ...good, file: { ...file, type: 'text/\udf0d' } }, /^file\.type.*well formed/],
    [{ ...good, metadata: { a: ['\ud83c'] } }, /^metadata.*well-formed/],
    [{ ...good, metadata: { a: { '\udf0d': 1 } } }, /^metadata.*well-formed/],
    [{}, /^file/],
    [null, /Expected Object/],
  ])('%j is refused with the place of the fault', (body, detail) => {
    const parsed = parseDeclareRequest(body)
    expect(parsed.ok).toBe(false)
    expect(parsed.ok ? '' : parsed.detail).toMatch(detail)
  })
})

describe('well-formed text', () => {
  test('is exactly what comes back unchanged from UTF-8', () => {
    for (const text of [
      '',
      'a',
      '🌍',
      'a🌍b',
      '\ud83c',
      '\udf0d',
      '\udf0d\ud83c',
      '🌍\ud83c',
      '\ud83c🌍',
      '\ufffd',
      '\u0000',
    ])
      expect([text, isWellFormed(text)]).toEqual([text, Buffer.from(text).toString() === text])
  })

  test('is read unchanged in a declaration', () => {
    const request = { file: { ...file, name: '🌍 日本 é.txt' }, metadata: { '🌍': ['日本', { é: '🌍' }] } }
    expect(parseDeclareRequest(request)).toEqual({ ok: true, value: request })
  })
})

describe('answers', () => {
  test('an operation, a list and a prefix are read', () => {
    expect(parseOperation(operation)).toEqual({ ok: true, value: operation })
    expect(parseOperationList({ operations: [operation], next: ID })).toEqual({
      ok: true,
      value: { operations: [operation], unreadable: [], next: ID },
    })
    expect(parsePrefix({ offset: 5, digest: DIGEST })).toEqual({ ok: true, value: { offset: 5, digest: DIGEST } })
  })

  test('of a newer server: a point that is not known here becomes unknown, and additional fields are ignored', () => {
    const newer = { ...operation, recoveryPoint: 'scanned', scannedBy: { name: 'x' } }
    expect(parseOperation(newer)).toEqual({ ok: true, value: { ...operation, recoveryPoint: 'unknown' } })
    expect([isOpen('unknown'), isFinal('unknown'), isReferenced('unknown')]).toEqual([false, false, false])
    expect(parseOperationList({ operations: [newer, operation] })).toMatchObject({
      ok: true,
      value: { operations: [{ recoveryPoint: 'unknown' }, { recoveryPoint: 'declared' }], unreadable: [] },
    })
  })

  test('of a newer server: an operation that cannot be read is named, and leaves the others readable', () => {
    const other = '0192f0c1-0000-7000-8000-00000000000b'
    const odd = { ...operation, id: other, digest: 'sha-512=:AAAA:' }
    expect(parseOperationList({ operations: [odd, operation] })).toEqual({
      ok: true,
      value: { operations: [operation], unreadable: [other] },
    })
    // An operation without an id could be any. Then nothing can be concluded about the ones that are missing.
    for (const nobody of [null, 'x', {}, { id: 'x' }])
      expect(parseOperationList({ operations: [nobody, operation] }).ok).toBe(false)
  })

  test.each([
    '<html></html>',
    null,
    {},
    { ...operation, recoveryPoint: 7 },
    { ...operation, offset: -1 },
    { ...operation, createdAt: 'now' },
    { ...operation, recoveryPoint: 'rejected', problem: null },
  ])('%j is no operation', (body) => expect(parseOperation(body).ok).toBe(false))
})

describe('problems', () => {
  test('carry their status, and their code in the type', () => {
    for (const code of Object.keys(PROBLEMS) as ProblemCode[]) {
      const made = problem(code)
      expect(made).toMatchObject({ status: PROBLEMS[code].status, code, type: `urn:landfall:problem:${code}` })
      expect(parseProblem(JSON.parse(JSON.stringify(made)))).toEqual({ ok: true, value: made })
      expect(problemCode(made)).toBe(code)
    }
  })

  test('end an operation, except for those that pass', () => {
    const ofConsequence = (consequence: string): string[] =>
      Object.keys(PROBLEMS).filter((code) => consequenceOf(problem(code as ProblemCode)) === consequence)
    expect(ofConsequence('authenticate')).toEqual(['unauthenticated', 'other-owner'])
    expect(ofConsequence('declare')).toEqual(['not-found'])
    expect(ofConsequence('retry')).toEqual([
      'offset-conflict',
      'already-referenced',
      'range-not-satisfiable',
      'locked',
      'owner-required',
      'too-many-open',
      'too-many-declared',
      'too-many-waiting',
      'too-slow',
      'head-too-large',
      'internal',
      'stalled',
      'unavailable',
      'storage-full',
    ])
  })

  test("keep the application's own code next to our type", () => {
    const made = problem('rejected', { code: 'infected', detail: 'A virus' })
    expect([made.code, problemCode(made), consequenceOf(made)]).toEqual(['infected', 'rejected', 'final'])
  })

  test('that are not ours end no operation', () => {
    for (const type of [
      'about:blank',
      'urn:landfall:problem:no-such',
      'https://elsewhere.test/rejected',
      'urn:landfall:problem:toString',
    ])
      expect(consequenceOf({ type, title: '', status: 404, code: 'not-found' })).toBe('retry')
  })
})
