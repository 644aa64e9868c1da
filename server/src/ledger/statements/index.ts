import type { Dialect } from '../dialect.js'
import { effectStatements } from './effects.js'
import { inventoryStatements } from './inventory.js'
import { leaseStatements } from './leases.js'
import { markStatements } from './marks.js'
import { operationStatements } from './operations.js'
import { referenceStatements } from './references.js'
import { retentionStatements } from './retention.js'

/** The statements of a ledger as plans: one for each method of the ports. */
export const ledgerStatements = (dialect: Dialect) => ({
  ...operationStatements(dialect),
  ...leaseStatements(dialect),
  ...referenceStatements(dialect),
  ...effectStatements(dialect),
  ...inventoryStatements(dialect),
  ...markStatements(dialect),
  ...retentionStatements(dialect),
})
