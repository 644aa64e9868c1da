import type { LedgerEffects } from './ledger/effects.js'
import type { LedgerInventory } from './ledger/inventory.js'
import type { LedgerLeases } from './ledger/leases.js'
import type { LedgerMarks } from './ledger/marks.js'
import type { LedgerOperations } from './ledger/operations.js'
import type { LedgerReferences } from './ledger/references.js'

/**
 * The server's tables in the application's database: the only truth about where an operation stands.
 *
 * `Tx` is the application's own transaction handle, as its `onReference` gets it.
 *
 * Every method that changes an operation is atomic, and durable when it resolves; on a fault it rejects with an
 * `UploadError` of code `ledger-unavailable` or with the database's own error, and then nothing is known until read again.
 */
export interface Ledger<Tx>
  extends LedgerOperations, LedgerLeases, LedgerReferences<Tx>, LedgerEffects, LedgerInventory, LedgerMarks {}
