import type { Server } from 'node:http'
import { listen } from '../ground/ports.js'

/**
 * Listens on any free port of loopback, and prints the address when ready. On SIGTERM it calls `close` and then ends
 * the process.
 */
export async function serveProgram(server: Server, close: () => Promise<unknown> = async () => {}): Promise<void> {
  const port = await listen(server)
  process.on('SIGTERM', () => {
    server.close()
    void close().finally(() => process.exit(0))
  })
  process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
}

/** The options of the AWS SDK for the object store that `LANDFALL_S3_*` names. */
export function s3FromEnv() {
  const of = (name: string): string => process.env[`LANDFALL_S3_${name}`] ?? ''
  return {
    bucket: of('BUCKET'),
    endpoint: of('ENDPOINT'),
    region: of('REGION'),
    credentials: { accessKeyId: of('ACCESS_KEY_ID'), secretAccessKey: of('SECRET_ACCESS_KEY') },
    forcePathStyle: true,
  }
}
