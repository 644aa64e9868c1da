import { statSync } from 'node:fs'
import { join } from 'node:path'
import { hasLedger } from '../engines.js'
import { openUploads } from '../open.js'
import type { Settings } from '../settings.js'
import { UploadError } from '../../lib/errors.js'
import { createLogger } from '../../lib/log.js'
import { connectOperatorIn } from '../../operate/operator-client.js'
import type { Operator } from '../../operate/operator.js'

const CLOSE_MS = 10_000

/** A server holds the directory, but it does not answer or has another version. */
export class ServerUnavailable extends UploadError {}

/**
 * Calls `work` with the operator of the server that runs on the data directory, or with an operator in this process if
 * none runs.
 *
 * @throws UploadError `setup` if the directory contains nothing of Landfall, before anything is created; or if a server
 * holds the directory and cannot be asked.
 */
export async function withOperator<T>(
  settings: Settings,
  work: (operator: Operator, where: 'server' | 'here') => Promise<T>,
): Promise<T> {
  const { LANDFALL_DATA_DIR: directory } = settings
  if (!isDirectory(directory)) throw new UploadError('setup', `LANDFALL_DATA_DIR: there is no directory ${directory}`)
  // An application that embeds Landfall has its socket in the directory of its blobs.
  const connected = await connectOperatorIn([directory, join(directory, 'blobs')])
  if (connected.outcome === 'refused') throw new ServerUnavailable('setup', connected.why)
  if (connected.outcome === 'connected') return work(connected.operator, 'server')
  if (!(await hasLedger(settings)))
    throw new UploadError(
      'setup',
      `LANDFALL_DATA_DIR, LANDFALL_DATABASE_URL: no server has ever run on ${directory}; start \`landfall serve\` once to create them`,
    )
  const { uploads, database } = await openUploads(settings, createLogger('error'), 'manual')
  try {
    return await work(uploads.operator, 'here')
  } finally {
    await uploads.close({ withinMs: CLOSE_MS })
    await database.close()
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
