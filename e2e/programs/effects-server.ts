/**
 * An application that owes effects, as a process of its own: `node effects-server.js <directory> <url> [<url that
 * hangs>]`. Its completer delivers what stands in the ledger; nothing is uploaded.
 */
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { createUploads, fileBlobs, serializedLibsql, sqliteLedger, standardWebhook } from '@landfall/server'
import { drizzle } from 'drizzle-orm/libsql'

const [directory = '', url, hanging] = process.argv.slice(2)
const secret = `whsec_${Buffer.from('of the benchmark, 24 bytes').toString('base64')}`
const hookTo = (to: string) => standardWebhook({ url: to, secret, allowPrivateAddresses: true })
const client = serializedLibsql(createClient({ url: `file:${join(directory, 'app.db')}` }))
const uploads = createUploads({
  ledger: sqliteLedger(drizzle(client)),
  blobs: fileBlobs({ directory: join(directory, 'blobs') }),
  authenticate: () => 'bench',
  kinds: (kind) => ({
    file: kind({
      onReference: async () => null,
      effects: {
        ...(url === undefined ? {} : { quick: hookTo(url) }),
        ...(hanging === undefined ? {} : { hangs: hookTo(hanging) }),
      },
    }),
  }),
  // Without a receiver: only the tables are made.
  completer: url === undefined ? 'manual' : 'automatic',
})
await uploads.ready()
process.on('SIGTERM', () => {
  void uploads.close({ withinMs: 1_000 }).then(() => process.exit(0))
})
process.stdout.write('ready\n')
setInterval(() => {}, 60_000)
