import { isFinal, isOpen, problem } from '@landfall/shared'
import { absent } from '../kinds/gone.js'
import { refuse } from '../lib/problem-error.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import type { Leases } from './leases.js'

/** Step x. Idempotent. Refused with 409 once there is a reference. The completer removes the bytes afterwards. */
export type Cancel = (key: OperationKey) => Promise<OperationRecord>

export function createCancel({
  ledger,
  leases,
  wake,
}: {
  ledger: LedgerOperations
  leases: Leases
  wake: () => void
}): Cancel {
  return async function cancel(key) {
    for (;;) {
      const cancelled = await ledger.cancel(key, problem('cancelled'))
      if (cancelled !== null) {
        leases.drop(key)
        wake()
        return cancelled
      }
      const operation = await ledger.find(key)
      if (operation === null) throw await absent(ledger, key)
      if (isFinal(operation.point)) return operation
      if (!isOpen(operation.point)) throw refuse('already-referenced')
      // The client declared the operation between `cancel` and `find`: cancel it now.
    }
  }
}
