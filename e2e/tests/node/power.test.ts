import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { type LogLine, losePower, unsyncedOf } from '../../sweep/power.js'

async function leftOf(linesOf: (path: string) => LogLine[]): Promise<string | null> {
  const home = await temporaryDirectory('landfall-power-')
  try {
    const path = join(home.path, 'blob')
    await writeFile(path, 'abcdef')
    await losePower(unsyncedOf(linesOf(path)), 'cut')
    return await readFile(path, 'utf8').catch(() => null)
  } finally {
    await home.remove()
  }
}

test('what was written and not synced is lost, what was synced before stays', async () => {
  const left = await leftOf((path) => [
    { created: path },
    { syncing: join(path, '..') },
    { synced: join(path, '..') },
    { written: path, from: 0, to: 4 },
    { syncing: path },
    { synced: path },
    { written: path, from: 4, to: 6 },
  ])
  expect(left).toBe('abcd')
})

test('a file whose name was not synced was never there', async () => {
  expect(await leftOf((path) => [{ created: path }, { written: path, from: 0, to: 6, synced: true }])).toBeNull()
})

test('bytes of a write that its process did not live to log are durable after the next sync', async () => {
  const killed = (path: string): LogLine[] => [
    { created: path },
    { syncing: join(path, '..') },
    { synced: join(path, '..') },
    { written: path, from: 0, to: 4 },
  ]
  const synced = (path: string): LogLine[] => [{ opened: path, size: 6 }, { syncing: path }, { synced: path }]
  expect(await leftOf(killed)).toBe('')
  expect(await leftOf((path) => [...killed(path), ...synced(path)])).toBe('abcdef')
})
