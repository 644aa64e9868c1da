import { existsSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createClient } from '@libsql/client'
import { UploadError } from '../errors.js'
import { createLogger } from '../log.js'
import { openUploads } from '../open.js'
import type { Operator } from '../operator.js'
import { connectOperator } from '../operator-socket.js'
import { databaseUrl, type Settings } from '../settings.js'

const CLOSE_MS = 10_000

/** A server has the directory, and nothing can be learnt from it. */
export class ServerDoesNotTalk extends UploadError {}

/**
 * With the operator of the server that runs on the data directory, or with one of our own while none does.
 *
 * @throws UploadError `setup` where there is nothing of Landfall's, before anything is made; or where a server has the
 * directory and does not talk with us.
 */
export async function withOperator<T>(
  settings: Settings,
  work: (operator: Operator, where: 'server' | 'here') => Promise<T>,
): Promise<T> {
  const { LANDFALL_DATA_DIR: directory } = settings
  if (!isDirectory(directory)) throw new UploadError('setup', `LANDFALL_DATA_DIR: there is no directory ${directory}`)
  const connected = await connectOperator(directory)
  if (connected.outcome === 'refused') throw new ServerDoesNotTalk('setup', connected.why)
  if (connected.outcome === 'connected') return work(connected.operator, 'server')
  // A command that looks must not make a ledger where somebody mistyped a name.
  if (!(await hasLedger(databaseUrl(settings))))
    throw new UploadError(
      'setup',
      `LANDFALL_DATA_DIR, LANDFALL_DATABASE_URL: no server has ever run on ${directory}; \`landfall serve\` makes what is needed`,
    )
  const { uploads, client } = openUploads(settings, createLogger('error'), 'manual')
  try {
    return await work(uploads.operator, 'here')
  } finally {
    await uploads.close({ withinMs: CLOSE_MS })
    client.close()
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

async function hasLedger(url: string): Promise<boolean> {
  if (!existsSync(url.startsWith('file://') ? fileURLToPath(url) : url.slice('file:'.length))) return false
  const client = createClient({ url })
  try {
    const { rows } = await client.execute(`SELECT 1 FROM sqlite_schema WHERE name = 'landfall_meta'`)
    return rows.length > 0
  } catch (error) {
    throw new UploadError('setup', 'LANDFALL_DATA_DIR, LANDFALL_DATABASE_URL: the database cannot be read', {
      cause: error,
    })
  } finally {
    client.close()
  }
}
