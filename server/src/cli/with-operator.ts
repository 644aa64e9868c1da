import { existsSync } from 'node:fs'
import { UploadError } from '../errors.js'
import { createLogger } from '../log.js'
import { openUploads } from '../open.js'
import type { Operator } from '../operator.js'
import { connectOperator } from '../operator-socket.js'
import type { Settings } from '../settings.js'

const CLOSE_MS = 10_000

/** With the operator of the server that runs on the data directory, or with one of our own while none does. */
export async function withOperator<T>(
  settings: Settings,
  work: (operator: Operator, where: 'server' | 'here') => Promise<T>,
): Promise<T> {
  const { LANDFALL_DATA_DIR: directory } = settings
  // A command that looks must not make a new data directory where somebody mistyped its name.
  if (!existsSync(directory)) throw new UploadError('setup', `LANDFALL_DATA_DIR: there is no directory ${directory}`)
  const running = await connectOperator(directory)
  if (running !== null) return work(running, 'server')
  const { uploads, client } = openUploads(settings, createLogger('error'), 'manual')
  try {
    await uploads.ready()
    return await work(uploads.operator, 'here')
  } finally {
    await uploads.close({ withinMs: CLOSE_MS })
    client.close()
  }
}
