import { Client } from 'pg'
import type { Ground } from '../ground/ground.js'
import { openBucket } from './bucket.js'
import { FINAL_POINTS, type ReadBatch, type Reader, readLedger, readMoving, type StoredLedger } from './stored.js'

const CONNECT_MS = 5_000
const BLOBS = 'blobs/'
const TAILS = 'tails/'
const QUARANTINE = 'quarantine/'

/** Reads what several nodes have stored in PostgreSQL and a bucket. It does not use the nodes or their lines. */
export function openNodesReader(ground: Pick<Ground, 'databaseUrl' | 'gateway' | 'prefix'>): Reader {
  const bucket = openBucket(ground.gateway, ground.prefix)
  async function reading<T>(read: (batch: ReadBatch) => Promise<T>): Promise<T> {
    // Each read has a new connection, because the database is restarted between reads.
    const client = new Client({ connectionString: ground.databaseUrl, connectionTimeoutMillis: CONNECT_MS })
    client.on('error', () => {})
    try {
      await client.connect()
      return await read(async (statements) => {
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
        const results = []
        for (const statement of statements) results.push((await client.query<Record<string, unknown>>(statement)).rows)
        await client.query('COMMIT')
        return results
      })
    } finally {
      await client.end().catch(() => {})
    }
  }

  return {
    async read() {
      // A row exists before its bytes. So what is listed first has its row in what is read second.
      const names = { blobs: await bucket.objects(BLOBS), tails: await bucket.objects(TAILS) }
      const multiparts = await bucket.multiparts()
      const aside = new Set(
        (await bucket.objects(QUARANTINE)).map((name) => name.slice(QUARANTINE.length, QUARANTINE.length + 32)),
      )
      const ledger = await reading(readLedger)
      const keys = names.blobs.map((name) => name.slice(BLOBS.length)).filter((key) => !aside.has(key))
      return {
        ...ledger,
        rows: null,
        notes: 0,
        blobs: new Map(keys.map((key) => [key, { digest: () => bucket.digestOf(BLOBS + key) }])),
        leftovers: [
          ...names.tails.filter((name) => !isNeeded(ledger, name.slice(TAILS.length, TAILS.length + 32))),
          ...multiparts
            .filter((name) => !isNeeded(ledger, name.slice(BLOBS.length)))
            .map((name) => `multipart ${name}`),
        ],
      }
    },
    readLedger: () => reading(readLedger),
    readMoving: () => reading(readMoving),
    async end() {
      bucket.end()
    },
  }
}

/** Whether a client may still resume this upload, or a node will soon clean it up. */
function isNeeded({ operations }: StoredLedger, key: string): boolean {
  const operation = operations.find(({ blobKey }) => blobKey === key)
  if (operation === undefined) return false
  const { point, cleanupDue, leased } = operation
  return leased || cleanupDue || (point !== 'completed' && !FINAL_POINTS.has(point))
}
