import { problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import { statementsFor } from '../changes.js'
import { insertOf } from '../columns.js'
import type { Dialect } from '../dialect.js'
import { Lost } from '../hook.js'
import { changes, type Plan, rows } from '../query.js'
import { OPEN, OPERATION_COLUMNS, toOperation } from '../rows.js'
import { EFFECTS, REFERENCES } from '../tables.js'
import { UploadError } from '../../lib/errors.js'
import { REMOVAL } from '../../ports/ledger/effects.js'
import type { Changes, Lease } from '../../ports/ledger/leases.js'
import type { HookOutcome, ReferenceIntent } from '../../ports/ledger/references.js'
import type { OperationRecord } from '../../ports/operation.js'
import { completable, updatePicked, writeBoth } from './due.js'
import { FENCE, fence } from './leases.js'

export function referenceStatements(dialect: Dialect) {
  const { now, lock, owed } = dialect
  const reference = insertOf(REFERENCES, now, {
    owner: 'owner',
    operationId: 'id',
    blobKey: 'blob_key',
    size: 'file_size',
    storedAt: 'updated_at',
  })
  const effect = insertOf(EFFECTS, now)
  const OWE = `${effect.into} VALUES (${effect.values})`
  const COMPLETE = updatePicked(completable(dialect), `point = 'completed', updated_at = ${now}`)
  // Any open point is allowed, because the same holder may have recorded an earlier one while the hook ran. The primary
  // key of the references enforces invariant 2, whatever else may fail.
  const referring = statementsFor(now, (set) =>
    writeBoth(
      dialect,
      `UPDATE landfall_operations SET ${set}, ${owed.column} = :owed WHERE ${FENCE} AND point IN ${OPEN} RETURNING ${OPERATION_COLUMNS}`,
      {
        alias: 'operation',
        named: ['owner', 'id', 'blob_key', 'file_size', 'updated_at'],
        second: (row) => `${reference.into} SELECT ${reference.values} FROM ${row}`,
      },
    ),
  )

  return {
    /** The last statements of the application's transaction. @throws Lost */
    *refer(
      lease: Lease,
      from: OperationRecord,
      { changes: given, content, digestSource, effects }: ReferenceIntent,
      { data }: Extract<HookOutcome, { outcome: 'accepted' }>,
    ): Plan<OperationRecord> {
      const final: Changes = {
        ...given,
        point: 'referenced',
        content,
        attempts: 0,
        lastError: null,
        problem: null,
        stalled: false,
        dueInMs: null,
        uncleanHolder: null,
        release: true,
      }
      const { made: write, args } = referring(final)
      const referenced = yield* write(args, fence(lease, from), reference.args({ content, digestSource, data }), {
        owed: owed.of(effects.length),
      })
      if (referenced === undefined) throw new Lost()
      const operation = toOperation(referenced)
      const { owner, id, kind, blobKey, file, updatedAt } = operation
      const made = { blobKey, size: file.size, ...content, digestSource, storedAt: updatedAt, data }
      for (const { effectId, name, type, payload } of effects)
        yield* changes(OWE, effect.args({ effectId, owner, operationId: id, kind, name, type, payload: payload(made) }))
      return { ...operation, reference: made }
    },

    *complete(limit: number): Plan<number> {
      return yield* changes(COMPLETE, { limit })
    },

    /**
     * Runs in the application's own transaction. Either the reference is deleted and the removal of its bytes is owed,
     * or neither.
     */
    *remove(id: string, named: string | null): Plan<boolean> {
      const [found, another] = yield* rows(
        `SELECT owner, blob_key FROM landfall_references WHERE operation_id = :id ${named === null ? '' : 'AND owner = :owner'} ${lock('landfall_references')}`,
        { id, owner: named },
      )
      if (found === undefined) return false
      if (another !== undefined)
        throw new UploadError('ambiguous-operation', 'several owners use this operation id: name the owner')
      const owner = String(found['owner'])
      yield* changes(`DELETE FROM landfall_references WHERE owner = :owner AND operation_id = :id`, { owner, id })
      yield* changes(
        OWE,
        effect.args({
          ...REMOVAL,
          effectId: uuidv7(),
          owner,
          operationId: id,
          type: 'remove-bytes',
          payload: { blobKey: String(found['blob_key']) },
        }),
      )
      yield* changes(
        `UPDATE landfall_operations SET ${owed.oneMore} removed_at = ${now}, problem = :problem, updated_at = ${now}
         WHERE owner = :owner AND id = :id`,
        { problem: JSON.stringify(problem('removed')), owner, id },
      )
      return true
    },
  }
}
