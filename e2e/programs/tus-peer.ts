/**
 * What Landfall is measured against, as a program of its own: `node tus-peer.js VARIANT DIRECTORY`.
 *
 * - `tus`: plain @tus/server and @tus/file-store; `onUploadFinish` inserts one row (Drizzle, @libsql/client, WAL,
 *   synchronous=FULL), which is how the stack is usually put together. No file is ever synced.
 * - `tus-sync`: the same, and the file is synced before the row is inserted: durable like Landfall's reference.
 * - `pipe`: `request.pipe(file)`, answered when the file is written. The least a server can do.
 *
 * Prints one line with its address when ready.
 */
import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { FileStore } from '@tus/file-store'
import { listen } from '../ground/ports.js'
import { tusStack } from './tus-stack.js'

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function tusListener(directory: string, sync: boolean): Promise<RequestListener> {
  const uploads = join(directory, 'uploads')
  await mkdir(uploads, { recursive: true })
  return tusStack(new FileStore({ directory: uploads }), directory, async (id) => {
    if (sync) await syncFile(join(uploads, id))
  })
}

async function pipeListener(directory: string): Promise<RequestListener> {
  const uploads = join(directory, 'uploads')
  await mkdir(uploads, { recursive: true })
  async function store(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const done = await pipeline(request, createWriteStream(join(uploads, randomUUID()))).then(
      () => true,
      () => false,
    )
    response.writeHead(done ? 204 : 500).end()
  }
  return (request, response) => void store(request, response)
}

async function main([variant, directory]: readonly string[]): Promise<void> {
  if (directory === undefined) throw new Error('usage: tus-peer tus|tus-sync|pipe DIRECTORY')
  const listener = variant === 'pipe' ? pipeListener(directory) : tusListener(directory, variant === 'tus-sync')
  const server = createServer(await listener)
  const port = await listen(server)
  process.on('SIGTERM', () => process.exit(0))
  process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
}

await main(process.argv.slice(2))
