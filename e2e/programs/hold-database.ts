/** `node hold-database.js FILE` keeps the database locked until the process is killed. */
import { createClient } from '@libsql/client'

const client = createClient({ url: `file:${process.argv[2] ?? ''}`, timeout: 10_000 })
const isLocked = (error: unknown): null => {
  if (String(error).includes('locked')) return null
  throw error
}
while ((await client.transaction('write').catch(isLocked)) === null);
process.stdout.write('locked\n')
setInterval(() => {}, 1_000)
