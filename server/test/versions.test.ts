import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { POSTGRES_MIGRATIONS } from '../src/ledger/postgres/migrations.js'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { mutate } from '../../e2e/mutants/mutate.js'
import { content, digestOf, newId } from './harness.js'
import { type Node, nodesOn, untilReferenced } from './nodes.js'
import { useProgram } from './program.js'
import { s3Server } from './s3.js'

// A rolling update: this version and the next one run against one database and one bucket.

const { missing, config } = await s3Server()
const MIB = 1024 * 1024

/** The next version: this one, with a migration more. */
async function nextVersion(): Promise<string> {
  const folder = await mutate({
    name: 'the next version',
    edits: [
      {
        file: 'ledger/postgres/migrations.js',
        find: /\n\];\n/,
        put: `
    [
      'ALTER TABLE landfall_operations ADD COLUMN shelf text',
      'ALTER TABLE landfall_references ADD COLUMN weight integer NOT NULL DEFAULT 1',
      'CREATE INDEX landfall_operations_shelf ON landfall_operations (shelf) WHERE shelf IS NOT NULL',
    ],
];
`,
      },
    ],
  })
  return `${folder}/dist/cli.js`
}

describe.skipIf(missing !== null)(
  `versions N and N+1 on one database${missing === null ? '' : ` (${missing})`}`,
  () => {
    const program = useProgram()
    let postgres: Postgres
    beforeAll(async () => {
      postgres = await startPostgres()
    }, 60_000)
    afterAll(() => postgres.stop())

    test('an upload goes through both, while the next one migrates and after it; both start again', async () => {
      const url = await postgres.database()
      const shared = nodesOn(url, config)
      let started = 0
      const start = (cli?: string): Promise<Node> =>
        program.serve({ ...shared, LANDFALL_DATA_DIR: `${program.directory}/node-${(started += 1)}` }, cli)
      const versionNow = async (): Promise<number> => {
        const client = new Client({ connectionString: url })
        await client.connect()
        const { rows } = await client.query<{ value: string }>(`SELECT value FROM landfall_meta WHERE key = 'version'`)
        await client.end()
        return Number(rows[0]?.value)
      }
      const next = await nextVersion()
      const old = await start()
      expect(await versionNow()).toBe(POSTGRES_MIGRATIONS.length)

      const [id, bytes] = [newId(), content(20 * MIB)]
      await old.declare(id, bytes.length)
      expect((await old.patch(id, 0, bytes.subarray(0, 5 * MIB))).status).toBe(204)
      const sending = old.patch(id, 5 * MIB, bytes.subarray(5 * MIB, 10 * MIB))
      const newer = await start(next)
      expect((await sending).status).toBe(204)
      expect(await versionNow()).toBe(POSTGRES_MIGRATIONS.length + 1)
      expect((await newer.patch(id, 10 * MIB, bytes.subarray(10 * MIB, 15 * MIB))).status).toBe(204)
      expect((await old.patch(id, 15 * MIB, bytes.subarray(15 * MIB))).status).toBe(204)

      // Back to the old one, as where an update is given up.
      const again = await start()
      expect(await versionNow()).toBe(POSTGRES_MIGRATIONS.length + 1)
      for (const node of [old, newer, again]) {
        await untilReferenced(node, id)
        const stored = await node.request('GET', `/files/${id}`)
        expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
        const own = newId()
        expect((await node.declare(own, MIB)).status).toBe(201)
        expect((await node.patch(own, 0, content(MIB))).status).toBe(204)
        await untilReferenced(node, own)
      }
    }, 120_000)
  },
)
