import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import { hashBlob } from '../src/hash.js'
import { reader } from '../src/read.js'
import { bytesOf, createFastClock } from './browser.js'

const { signal } = new AbortController()
const read = reader(createFastClock())
const digestOf = (bytes: Uint8Array): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

for (const size of [0, 1, 55, 56, 63, 64, 65, 1000, 64 * 1024, 1_000_003]) {
  it(`${size} bytes have the same hash as in Node, in slices of any size`, async () => {
    const bytes = bytesOf(size)
    for (const slice of [7_000, 65_536, 2_000_000]) {
      expect(await hashBlob(new Blob([bytes]), null, slice, read, signal)).toMatchObject({
        ok: true,
        digest: digestOf(bytes),
      })
    }
  })
}

it('hashing continues after a prefix', async () => {
  const bytes = bytesOf(300_001)
  for (const at of [0, 1, 64, 100, 299_999, 300_001]) {
    const prefix = await hashBlob(new Blob([bytes.subarray(0, at)]), null, 65_536, read, signal)
    if (!prefix.ok) throw new Error('unreadable')
    expect(prefix.digest).toBe(digestOf(bytes.subarray(0, at)))
    const whole = await hashBlob(new Blob([bytes]), structuredClone(prefix.state), 65_536, read, signal)
    expect(whole).toMatchObject({ ok: true, digest: digestOf(bytes) })
  }
})

it('a blob that cannot be read is reported as an outcome', async () => {
  const blob = new Blob(['x'])
  blob.slice = () => {
    const part = new Blob([])
    part.arrayBuffer = async () => {
      throw new DOMException('gone', 'NotReadableError')
    }
    return part
  }
  expect(await hashBlob(blob, null, 10, read, signal)).toEqual({ ok: false, why: 'unreadable' })
})

it('hashing stops when its signal ends', async () => {
  expect(await hashBlob(new Blob(['x']), null, 10, read, AbortSignal.abort())).toEqual({ ok: false, why: 'stopped' })
})
