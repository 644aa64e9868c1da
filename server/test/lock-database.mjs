// A process that locks the database until it is killed.
import Database from 'libsql'

const db = new Database(process.argv[2] ?? '')
db.exec('BEGIN IMMEDIATE')
process.send?.('locked')
setInterval(() => {}, 1_000)
