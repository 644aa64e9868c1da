/** The ledger behind PgBouncer in transaction mode. */
import { drizzle as drizzleNode } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleJs } from 'drizzle-orm/postgres-js'
import { Pool } from 'pg'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { ledgerContract } from '../src/contract/ledger.js'
import { findProgram } from './debian.js'
import { startPgBouncer } from './pgbouncer.js'
import { postgresFixture, schema } from './postgres-fixture.js'

const found = findProgram('pgbouncer', 'pgbouncer')

describe.skipIf('missing' in found)(`behind PgBouncer${'missing' in found ? ` (${found.missing})` : ''}`, () => {
  let server: Postgres
  let pooled: Awaited<ReturnType<typeof startPgBouncer>>
  beforeAll(async () => {
    server = await startPostgres()
    pooled = await startPgBouncer('path' in found ? found.path : '', server)
  }, 60_000)
  afterAll(async () => {
    await pooled.stop()
    await server.stop()
  })

  describe('ledger contract: node-postgres', () =>
    ledgerContract(test, () =>
      postgresFixture(pooled, (url) => {
        const pool = new Pool({ connectionString: url, max: 10 })
        return { db: drizzleNode(pool, { schema }), end: () => pool.end() }
      }),
    ))

  describe('ledger contract: postgres.js without prepared statements', () =>
    ledgerContract(test, () =>
      postgresFixture(pooled, (url) => {
        const client = postgres(url, { max: 10, prepare: false, onnotice: () => {} })
        return { db: drizzleJs(client, { schema }), end: () => client.end() }
      }),
    ))
})
