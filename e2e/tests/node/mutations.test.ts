import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { repository } from '../../ground/repository.js'
import { CLIENT_MUTATIONS } from '../../mutants/client-mutations.js'
import { MODEL_MUTATIONS } from '../../mutants/model-mutations.js'
import { MUTATIONS } from '../../mutants/mutations.js'

// `npm run sweep -- mutations` takes too long for each run of the tests. These tests only check that the built code
// still contains the code that each mutation changes. A mutation without it would test nothing.

test.each([...MUTATIONS, ...MODEL_MUTATIONS])(
  'the server still contains the code that a mutation changes: $name',
  ({ edits }) => {
    for (const { file, find, put } of edits) {
      const text = readFileSync(join(repository, 'server/dist', file), 'utf8')
      expect(text.replace(find, put) === text, `${String(find)} in ${file}`).toBe(false)
    }
  },
)

test.each(CLIENT_MUTATIONS)('the client still contains the code that a mutation changes: $name', ({ edits }) => {
  const text = readFileSync(join(repository, 'client/dist/index.js'), 'utf8')
  for (const { find, put } of edits) expect(text.replace(find, () => put) === text, String(find)).toBe(false)
})
