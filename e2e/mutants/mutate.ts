import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'vite'
import { repository } from '../ground/repository.js'

/** A mistake that is put into a built copy of the server. */
export interface Edit {
  /** The path of the file below the server's `dist`. */
  readonly file: string
  /** The text that is replaced. If it is not found, the mutation is out of date. */
  readonly find: string | RegExp
  readonly put: string
}

/** A mistake that is put into the client's `dist/index.js`. */
export interface ClientChange {
  readonly name: string
  readonly edits: readonly Omit<Edit, 'file'>[]
}

/**
 * Copies a built package and puts the mistakes into the copy. @throws when a place of a mistake is not found any more
 */
async function copyOf(dist: string, name: string, to: string, edits: readonly Edit[]): Promise<void> {
  await cp(join(repository, dist), to, { recursive: true })
  for (const { file, find, put } of edits) {
    const path = join(to, file)
    const before = await readFile(path, 'utf8')
    // `$1` and the like have a meaning only if `find` is a pattern.
    const after = typeof find === 'string' ? before.replace(find, () => put) : before.replace(find, put)
    if (after === before) throw new Error(`${name}: its place in ${file} is not there any more: ${String(find)}`)
    await writeFile(path, after)
  }
}

async function emptyFolder(kind: string, name: string): Promise<string> {
  const folder = join(repository, 'e2e/build', kind, name.replaceAll(/\W+/g, '-'))
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  return folder
}

/** Returns the folder of a changed copy of the server. */
export async function mutate({ name, edits }: { name: string; edits: readonly Edit[] }): Promise<string> {
  const folder = await emptyFolder('mutants', name)
  await cp(join(repository, 'server/package.json'), join(folder, 'package.json'))
  await copyOf('server/dist', name, join(folder, 'dist'), edits)
  return folder
}

/** Builds the swept page with a changed copy of the client. Returns the folder that contains it in `page`. */
export async function mutateClient({ name, edits }: ClientChange): Promise<string> {
  const folder = await emptyFolder('client-mutants', name)
  const client = join(folder, 'client')
  await copyOf(
    'client/dist',
    name,
    client,
    edits.map((edit) => ({ file: 'index.js', ...edit })),
  )
  await build({
    configFile: join(repository, 'e2e/vite.config.ts'),
    mode: 'sweep',
    logLevel: 'warn',
    resolve: { alias: [{ find: /^@landfall\/client$/, replacement: join(client, 'index.js') }] },
    build: { outDir: join(folder, 'page') },
  })
  return folder
}
