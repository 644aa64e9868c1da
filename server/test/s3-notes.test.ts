import type { JsonValue } from '@landfall/shared'
import { expect, test } from 'vitest'
import { foldedWith, noted, partsIn, readNotes, sealedState, toState } from '../src/blobs/s3/notes.js'
import { createProgress } from '../src/blobs/s3/progress.js'
import type { Tails } from '../src/blobs/s3/tails.js'

const MIB = 1024 * 1024
const PART = 8 * MIB
const etag = (number: number): string => `"${number.toString(16).padStart(32, '0')}"`
const begun = {
  token: '0192f0c1-a2b3-7000-8000-000000000001',
  partBytes: PART,
  uploadId: '2~abcdefghijklmnopqrstuvwxyz0123456',
  folded: null,
  parts: [],
  proof: '',
  tail: [],
}
const tails = { remove: async () => {} } as unknown as Tails

/** An upload as the ledger sees it, with two parts in each checkpoint. */
async function upload(parts: number): Promise<{ writtenBytes: number; largest: number; state: JsonValue }> {
  let [writtenBytes, largest] = [0, 0]
  let state: JsonValue = toState(begun)
  const progress = createProgress(
    { key: 'k', size: parts * PART, state },
    begun,
    {
      offset: 0,
      acknowledge: async (_offset: number, next?: JsonValue) => {
        state = next ?? state
        const { length } = JSON.stringify(state)
        writtenBytes += length
        largest = Math.max(largest, length)
        return true
      },
    } as never,
    tails,
  )
  for (let number = 1; number <= parts; number += 1) {
    progress.filling().done = { etag: etag(number), proof: `sha-256=:${'p'.repeat(43)}=:` }
    progress.next()
    if (number % 2 === 0) expect(await progress.acknowledge('final')).toBe(true)
  }
  return { writtenBytes, largest, state }
}

test('the notes of 10,000 parts are megabytes, so they do not grow with the square of the number', async () => {
  const { writtenBytes, largest, state } = await upload(10_000)
  process.stdout.write(
    `10,000 parts: ${writtenBytes} bytes of notes in 5,000 checkpoints, at most ${largest} at once\n`,
  )
  expect(largest).toBeLessThan(6_000)
  expect(writtenBytes).toBeLessThan(20 * MIB)
  const notes = readNotes(state)
  if (notes === null) throw new Error('there are no notes')
  expect([partsIn(notes), noted(notes, 10_000 * PART)]).toEqual([10_000, 10_000 * PART])
  const all = Array.from({ length: 10_000 }, (_, index) => etag(index + 1))
  expect(foldedWith(notes.folded?.etags ?? '', notes.parts)).toBe(foldedWith('', all))
})

test('an upload of few parts keeps all of them, in the earlier format', async () => {
  const { state } = await upload(128)
  expect(state).toMatchObject({ parts: Array.from({ length: 128 }, (_, index) => etag(index + 1)) })
  expect(readNotes(state)).toMatchObject({ folded: null })
})

test('the notes of a sealed blob are small, and still contain its offset', async () => {
  const { state } = await upload(400)
  const kept = sealedState(state)
  expect(JSON.stringify(kept).length).toBeLessThan(300)
  const notes = readNotes(kept)
  expect(notes).toMatchObject({ token: begun.token, uploadId: null, tail: [], parts: [] })
  expect(notes === null ? 0 : partsIn(notes)).toBe(400)
  expect(sealedState(null)).toBe(null)
})

test('ETags are the same with and without quotes', () => {
  expect(foldedWith('', ['"a"', '"b"'])).toBe(foldedWith(foldedWith('', ['a']), ['b']))
  expect(foldedWith('', ['a', 'b'])).not.toBe(foldedWith('', ['b', 'a']))
})
