import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { sha256Of } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import type { DirectorySystem, StoredFile } from './system.js'

const PROGRAM = join(repository, 'e2e/dist/programs/tus-peer.js')
const SIDECAR = '.json'

/** The usual stack (see `programs/tus-peer.ts`). It knows uploads only by the file's name, so that is the operation's id. */
export function peerSystem(variant: 'tus' | 'tus-sync', program = PROGRAM): DirectorySystem {
  return {
    on: 'directory',
    name: variant,
    title: variant === 'tus' ? '@tus/server, hook inserts a row' : '@tus/server, file synced, hook inserts a row',
    hasPages: false,
    tusPath: '/files',
    headers: {},
    metadata: ({ id }) => ({ filename: id, filetype: 'application/octet-stream' }),
    program: (directory) => ({
      name: variant,
      command: process.execPath,
      args: [program, variant, directory],
      ready: /(http:\/\/127\.0\.0\.1:(\d+))/,
    }),
    bytesDirectory: (directory) => join(directory, 'uploads'),
    databaseFile: (directory) => join(directory, 'peer.db'),
    async smallFiles(directory) {
      const names = await readdir(join(directory, 'uploads'))
      return names
        .filter((name) => name.endsWith(SIDECAR))
        .map((name) => ({ path: join(directory, 'uploads', name), refuses: null }))
    },
    look,
    reconcile: null,
  }
}

async function look(directory: string) {
  const uploads = join(directory, 'uploads')
  const rows = await readRows(directory)
  const names = await readdir(uploads)
  const progress = new Map<string, string>()
  const orphans: string[] = []
  let open = 0
  const referenced = new Set(rows.map(({ id }) => id))
  for (const id of names.filter((name) => !name.endsWith(SIDECAR))) {
    const sizeBytes = await stat(join(uploads, id)).then(
      ({ size }) => size,
      () => null,
    )
    if (sizeBytes === null) continue
    const sidecar = await readSidecar(join(uploads, id + SIDECAR))
    if (sidecar !== null) progress.set(sidecar.operation, `${progress.get(sidecar.operation) ?? ''} ${id} ${sizeBytes}`)
    if (referenced.has(id)) continue
    if (sidecar === null || sizeBytes >= sidecar.sizeBytes) orphans.push(id)
    else open += 1
  }
  const references = new Map<string, StoredFile[]>()
  for (const { id, operation } of rows) {
    const digest = async (): Promise<string | null> => (names.includes(id) ? sha256Of(join(uploads, id)) : null)
    references.set(operation, [...(references.get(operation) ?? []), { name: id, digest }])
    progress.set(operation, `${progress.get(operation) ?? ''} row ${id}`)
  }
  return { progress, references, orphans, open, stalled: 0, unfinished: [] }
}

async function readRows(directory: string): Promise<{ id: string; operation: string }[]> {
  const client = createClient({ url: `file:${join(directory, 'peer.db')}`, timeout: 10_000 })
  try {
    const { rows } = await client.execute('SELECT id, name FROM files')
    return rows.flatMap(({ id, name }) =>
      typeof id === 'string' && typeof name === 'string' ? [{ id, operation: name }] : [],
    )
  } finally {
    client.close()
  }
}

/** Null: torn, or not there. */
async function readSidecar(path: string): Promise<{ operation: string; sizeBytes: number } | null> {
  try {
    const { size, metadata } = JSON.parse(await readFile(path, 'utf8')) as {
      size: number
      metadata: { filename: string }
    }
    return { operation: metadata.filename, sizeBytes: size }
  } catch {
    return null
  }
}
