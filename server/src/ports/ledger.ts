import type { LedgerEffects } from './ledger/effects.js'
import type { LedgerInventory } from './ledger/inventory.js'
import type { LedgerLeases } from './ledger/leases.js'
import type { LedgerMarks } from './ledger/marks.js'
import type { LedgerOperations } from './ledger/operations.js'
import type { LedgerReferences } from './ledger/references.js'

/**
 * The server's tables in the application's database. They are the only truth about the state of an operation.
 *
 * `Tx` is the application's own transaction handle, as its `onReference` gets it.
 *
 * Every method that changes an operation is atomic, and its change is durable when it resolves. On a fault it rejects with
 * an `UploadError` of code `ledger-unavailable` or with the database's own error. The caller then knows nothing about the
 * change until it reads again.
 */
export interface Ledger<Tx>
  extends LedgerOperations, LedgerLeases, LedgerReferences<Tx>, LedgerEffects, LedgerInventory, LedgerMarks {}
