import { expect, test } from 'vitest'
import { patiently } from '../src/blobs/file/disk-patience.js'
import { createStop } from '../src/blobs/read-chunks.js'
import { UploadError } from '../src/lib/errors.js'

/** A disk that refuses so often. */
function refusing(code: string, times: number) {
  let calls = 0
  const work = async (): Promise<string> => {
    calls += 1
    if (calls <= times) throw Object.assign(new Error(code), { code })
    return 'written'
  }
  return { work, calls: () => calls }
}

test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EMFILE'])('%s passes while it is waited for', async (code) => {
  const disk = refusing(code, 3)
  expect(await patiently(disk.work, createStop(), 5_000)).toBe('written')
  expect(disk.calls()).toBe(4)
})

test('a file system that takes no more bytes is asked again', async () => {
  let full = true
  const work = async (): Promise<string> => {
    if (!full) return 'written'
    full = false
    throw new UploadError('storage-full', 'the file system took no more bytes')
  }
  expect(await patiently(work, createStop(), 5_000)).toBe('written')
})

test('what does not pass is said at once', async () => {
  const disk = refusing('EIO', 1)
  await expect(patiently(disk.work, createStop(), 5_000)).rejects.toMatchObject({ code: 'EIO' })
  expect(disk.calls()).toBe(1)
})

test('patience ends', async () => {
  const disk = refusing('ENOSPC', Number.POSITIVE_INFINITY)
  const fromMs = performance.now()
  await expect(patiently(disk.work, createStop(), 300)).rejects.toMatchObject({ code: 'ENOSPC' })
  expect(performance.now() - fromMs).toBeLessThan(2_000)
  expect(disk.calls()).toBeGreaterThan(1)
})

test('whoever is to let go waits no longer', async () => {
  const disk = refusing('ENOSPC', Number.POSITIVE_INFINITY)
  const stop = createStop()
  setTimeout(() => stop.ask(), 100)
  const fromMs = performance.now()
  await expect(patiently(disk.work, stop, 60_000)).rejects.toMatchObject({ code: 'ENOSPC' })
  expect(performance.now() - fromMs).toBeLessThan(5_000)
})
