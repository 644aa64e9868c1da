import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { repository } from '../../ground/repository.js'
import { CLIENT_MUTATIONS } from '../../mutants/client-mutations.js'
import { MODEL_MUTATIONS } from '../../mutants/model-mutations.js'
import { MUTATIONS } from '../../mutants/mutations.js'

// `npm run sweep -- mutations` takes too long for each run of the tests. That every mutation still finds its place in the
// built code is looked at here: one that does not would say nothing about the code of today.

test.each([...MUTATIONS, ...MODEL_MUTATIONS])('the server still has the place of the mutation: $name', ({ edits }) => {
  for (const { file, find, put } of edits) {
    const text = readFileSync(join(repository, 'server/dist', file), 'utf8')
    expect(text.replace(find, put) === text, `${String(find)} in ${file}`).toBe(false)
  }
})

test.each(CLIENT_MUTATIONS)('the client still has the place of the mutation: $name', ({ edits }) => {
  const text = readFileSync(join(repository, 'client/dist/index.js'), 'utf8')
  for (const { find, put } of edits) expect(text.replace(find, () => put) === text, String(find)).toBe(false)
})
