import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { repository } from '../../ground/landfall.js'

const sourcesOf = (folder: string): string[] =>
  readdirSync(join(repository, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|js)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))

const importsOf = (path: string): string[] =>
  [...readFileSync(path, 'utf8').matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '')

test.each([
  ['shared/src', /@landfall\/|^node:/],
  ['client/src', /@landfall\/server|^node:|hono|drizzle|libsql/],
  ['server/src', /@landfall\/client|idb-keyval|tus-js-client/],
])('imports of %s run one way', (folder, forbidden) => {
  const sources = sourcesOf(folder)
  expect(sources.length).toBeGreaterThan(3)
  const against = sources.flatMap((path) =>
    importsOf(path)
      .filter((name) => forbidden.test(name))
      .map((name) => `${path.slice(repository.length)} imports ${name}`),
  )
  expect(against).toEqual([])
})

test('the sequences and the rules know no adapter', () => {
  const knows = (path: string): string[] => importsOf(join(repository, path))
  expect(knows('server/src/sequence/rules.ts').filter((name) => name.startsWith('.') && name !== './ports.js')).toEqual(
    [],
  )
  for (const path of ['server/src/sequence/drive.ts', 'server/src/sequence/steps.ts', 'client/src/run.ts'])
    expect(knows(path).filter((name) => /\/(ledger|blobs|adapters|routes)\//.test(name))).toEqual([])
})
