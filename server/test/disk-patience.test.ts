import { expect, test } from 'vitest'
import { patiently } from '../src/blobs/file/disk-patience.js'
import { createStop } from '../src/blobs/read-chunks.js'
import { UploadError } from '../src/lib/errors.js'

/** A disk that refuses this number of calls. */
function refusing(code: string, times: number) {
  let calls = 0
  const work = async (): Promise<string> => {
    calls += 1
    if (calls <= times) throw Object.assign(new Error(code), { code })
    return 'written'
  }
  return { work, calls: () => calls }
}

test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EMFILE'])('%s is waited for until it passes', async (code) => {
  const disk = refusing(code, 3)
  expect(await patiently(disk.work, createStop(), 5_000)).toBe('written')
  expect(disk.calls()).toBe(4)
})

test('a write that the file system takes no bytes of is tried again', async () => {
  let full = true
  const work = async (): Promise<string> => {
    if (!full) return 'written'
    full = false
    throw new UploadError('storage-full', 'the file system took no more bytes')
  }
  expect(await patiently(work, createStop(), 5_000)).toBe('written')
})

test('an error that does not pass is thrown at once', async () => {
  const disk = refusing('EIO', 1)
  await expect(patiently(disk.work, createStop(), 5_000)).rejects.toMatchObject({ code: 'EIO' })
  expect(disk.calls()).toBe(1)
})

test('waiting ends after the time limit', async () => {
  const disk = refusing('ENOSPC', Number.POSITIVE_INFINITY)
  const fromMs = performance.now()
  await expect(patiently(disk.work, createStop(), 300)).rejects.toMatchObject({ code: 'ENOSPC' })
  expect(performance.now() - fromMs).toBeLessThan(2_000)
  expect(disk.calls()).toBeGreaterThan(1)
})

test('waiting ends when the writer is asked to stop', async () => {
  const disk = refusing('ENOSPC', Number.POSITIVE_INFINITY)
  const stop = createStop()
  setTimeout(() => stop.ask(), 100)
  const fromMs = performance.now()
  await expect(patiently(disk.work, stop, 60_000)).rejects.toMatchObject({ code: 'ENOSPC' })
  expect(performance.now() - fromMs).toBeLessThan(5_000)
})
