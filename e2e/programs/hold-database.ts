/** `node hold-database.js FILE`: another process that has the database locked, until it is killed. */
import { createClient } from '@libsql/client'

const client = createClient({ url: `file:${process.argv[2] ?? ''}`, timeout: 10_000 })
for (let isHeld = false; !isHeld;)
  await client.transaction('write').then(
    () => (isHeld = true),
    (error: unknown) => {
      if (!String(error).includes('locked')) throw error
    },
  )
process.stdout.write('locked\n')
setInterval(() => {}, 1_000)
