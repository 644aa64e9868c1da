import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { repository } from '../ground/landfall.js'

/** A mistake that is put into a built copy of the server. */
export interface Edit {
  /** Below the server's `dist`. */
  readonly file: string
  /** Must be found, or the mutation is out of date. */
  readonly find: string | RegExp
  readonly put: string
}

/** Answers the folder of the changed copy. @throws when a place is not there any more */
export async function mutate({ name, edits }: { name: string; edits: readonly Edit[] }): Promise<string> {
  const folder = join(repository, 'e2e/build/mutants', name.replaceAll(/\W+/g, '-'))
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  await cp(join(repository, 'server/package.json'), join(folder, 'package.json'))
  await cp(join(repository, 'server/dist'), join(folder, 'dist'), { recursive: true })
  for (const { file, find, put } of edits) {
    const path = join(folder, 'dist', file)
    const before = await readFile(path, 'utf8')
    const after = before.replace(find, put)
    if (after === before) throw new Error(`${name}: its place in ${file} is not there any more`)
    await writeFile(path, after)
  }
  return folder
}
