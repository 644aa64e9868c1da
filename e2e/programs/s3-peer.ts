/**
 * What uploads to S3 are measured against, as a program of its own: `node s3-peer.js tus|raw DIRECTORY`, the store in
 * `LANDFALL_S3_*`.
 *
 * - `tus`: plain @tus/server and the unmodified @tus/s3-store with its defaults; `onUploadFinish` inserts one row.
 * - `raw`: the request's body through the AWS SDK's own multipart upload, 8 MiB a part, four in flight; no row. The
 *   least a server can do.
 *
 * Prints one line with its address when ready.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { S3 } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { S3Store } from '@tus/s3-store'
import { listen } from '../ground/ports.js'
import { tusStack } from './tus-stack.js'

const PART_BYTES = 8 * 1024 * 1024

const said = (name: string): string => process.env[`LANDFALL_S3_${name}`] ?? ''
const bucket = said('BUCKET')
const config = {
  endpoint: said('ENDPOINT'),
  region: said('REGION'),
  credentials: { accessKeyId: said('ACCESS_KEY_ID'), secretAccessKey: said('SECRET_ACCESS_KEY') },
  forcePathStyle: true,
  // Ceph knows no other checksums, and answers 411 to streams with one.
  requestChecksumCalculation: 'WHEN_REQUIRED',
} as const

const tusListener = (directory: string): Promise<RequestListener> =>
  tusStack(new S3Store({ partSize: PART_BYTES, s3ClientConfig: { ...config, bucket } }), directory)

function rawListener(): RequestListener {
  const client = new S3(config)
  async function store(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const upload = new Upload({
      client,
      params: { Bucket: bucket, Key: randomUUID(), Body: request },
      partSize: PART_BYTES,
      queueSize: 4,
    })
    const done = await upload.done().then(
      () => true,
      () => false,
    )
    response.writeHead(done ? 204 : 500).end()
  }
  return (request, response) => void store(request, response)
}

async function main([variant, directory]: readonly string[]): Promise<void> {
  if (directory === undefined) throw new Error('usage: s3-peer tus|raw DIRECTORY')
  const server = createServer(variant === 'raw' ? rawListener() : await tusListener(directory))
  const port = await listen(server)
  process.on('SIGTERM', () => process.exit(0))
  process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
}

await main(process.argv.slice(2))
