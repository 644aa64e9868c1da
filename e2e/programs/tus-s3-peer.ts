/**
 * What is usually put together on S3, unmodified, as a program of its own: `node tus-s3-peer.js
 * '{"databaseUrl":"…","s3":{…},…}'`. @tus/server and @tus/s3-store as they come; `onUploadFinish` inserts one row into
 * PostgreSQL. Objects are named after the file, and something random. Prints one line with its address when ready.
 */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { S3Store } from '@tus/s3-store'
import { Server } from '@tus/server'
import { Pool } from 'pg'
import * as v from 'valibot'
import { nodeSettings } from './node-settings.js'
import { listen } from '../ground/ports.js'

export type TusS3PeerSettings = v.InferInput<typeof nodeSettings>

const settings = v.parse(nodeSettings, JSON.parse(process.argv[2] ?? '{}'))
const { bucket, endpoint, region, accessKeyId, secretAccessKey } = settings.s3
const pool = new Pool({ connectionString: settings.databaseUrl, max: 10, connectionTimeoutMillis: 5_000 })
pool.on('error', () => {})

const store = new S3Store({
  partSize: settings.partBytes,
  s3ClientConfig: {
    bucket,
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    // Ceph takes no other uploads of streams.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Without it a call that is never answered is waited for without end.
    requestHandler: { requestTimeout: settings.callTimeoutMs, throwOnRequestTimeout: true },
  },
})

const server = new Server({
  path: '/files',
  datastore: store,
  namingFunction: (_request, metadata) => `${metadata?.['filename'] ?? ''}-${randomUUID()}`,
  async onUploadFinish(_request, { id, metadata }) {
    await pool.query('INSERT INTO arrivals (operation_id, name) VALUES ($1, $2)', [id, metadata?.['filename'] ?? ''])
    return {}
  },
})
const web = createServer((request, response) => {
  response.shouldKeepAlive = false
  void server.handle(request, response)
})
const port = await listen(web)
process.on('SIGTERM', () => process.exit(0))
process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
