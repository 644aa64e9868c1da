import type { Holdings } from '../../ports/ledger/references.js'
import type { OperationKey } from '../../ports/operation.js'
import type { Retention } from '../../ports/ledger/inventory.js'
import type { TombstonePoint } from '../../ports/ledger/operations.js'
import { attendedSince } from '../clock-marks.js'
import { meta } from './inventory.js'
import type { Queries } from '../postgres/query.js'
import { type Connection, NOW } from './client/connection.js'
import {
  DELIVERED_EFFECTS,
  type Ended,
  ENDED_OPERATIONS,
  FORGOTTEN_OPERATIONS,
  forgetting,
  HOLDINGS,
  newTombstoneKey,
  ownerHash,
  stepsIn,
  TOMBSTONE,
  TOMBSTONE_KEY,
  toEnded,
  toHoldings,
  toTombstone,
  usesNothing,
} from '../tombstones.js'

// What retention and the right to erasure do on a connection.

const MAKE_KEY = `INSERT INTO landfall_meta (key, value) VALUES ('${TOMBSTONE_KEY}', ?) ON CONFLICT (key) DO NOTHING`
const FIND_KEY = `SELECT value FROM landfall_meta WHERE key = '${TOMBSTONE_KEY}'`

/** On the writer: makes it where there is none. */
export function tombstoneKey(on: Connection): string {
  const known = meta(on, TOMBSTONE_KEY)
  if (known !== null) return known
  on.run(MAKE_KEY, [newTombstoneKey()])
  return tombstoneKey(on)
}

export function tombstone(on: Connection, { owner, id }: OperationKey): TombstonePoint | null {
  const key = meta(on, TOMBSTONE_KEY)
  return key === null ? null : toTombstone(on.get(TOMBSTONE, [id, ownerHash(key, owner)]))
}

/** Until when what happened is over. */
interface Over {
  readonly nowAt: number
  readonly endedAt: number | null
  readonly deliveredAt: number | null
}

function over(on: Connection, { finalMs, effectsMs }: Retention): Over {
  const nowAt = Number(on.get(`SELECT ${NOW} AS now`)?.['now'])
  const steps = stepsIn(meta(on, 'clock_steps'))
  const since = (ms: number | null): number | null => (ms === null ? null : attendedSince(steps, nowAt, ms))
  return { nowAt, endedAt: since(finalMs), deliveredAt: since(effectsMs) }
}

/** What `retire` would take, at most so many of each; for a reader, and then for the writer. */
export function toRetire(
  on: Connection,
  retention: Retention,
  limit: number,
): { operations: Ended[]; effects: string[] } {
  const { nowAt, endedAt, deliveredAt } = over(on, retention)
  const key = meta(on, TOMBSTONE_KEY)
  const operations =
    key === null
      ? []
      : [
          ...on.all(FORGOTTEN_OPERATIONS, [nowAt, limit]),
          ...(endedAt === null ? [] : on.all(ENDED_OPERATIONS, [endedAt, endedAt, limit])),
        ]
          .slice(0, limit)
          .map(toEnded(key))
  const effects = deliveredAt === null ? [] : on.all(DELIVERED_EFFECTS, [deliveredAt, limit])
  return { operations, effects: effects.map((row) => row['effect_id'] as string) }
}

export function retire(on: Connection, retention: Retention, limit: number): { operations: number; effects: number } {
  const { operations, effects } = toRetire(on, retention, limit)
  const retired = new Set<string>()
  for (const { owner, id, hash, unnamed, point } of operations) {
    // A forgotten owner's operation may be among those that ended long ago as well.
    if (retired.has(`${id} ${owner}`)) continue
    retired.add(`${id} ${owner}`)
    on.run(`INSERT INTO landfall_tombstones (id, owner_hash, point) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, [
      id,
      hash,
      point,
    ])
    if (unnamed) on.run(`UPDATE landfall_operations SET owner_hash = ? WHERE owner = ? AND id = ?`, [hash, owner, id])
    on.run(`DELETE FROM landfall_effects WHERE owner = ? AND operation_id = ?`, [owner, id])
    on.run(`DELETE FROM landfall_operations WHERE owner = ? AND id = ?`, [owner, id])
  }
  for (const owner of new Set(operations.map((operation) => operation.owner)))
    on.run(`DELETE FROM landfall_usage WHERE owner = ? AND ${usesNothing(NOW)}`, [owner])
  const deleted = effects.map((effectId) => on.run(`DELETE FROM landfall_effects WHERE effect_id = ?`, [effectId]))
  return { operations: retired.size, effects: deleted.reduce((sum, each) => sum + each, 0) }
}

export const holdings = (on: Connection, owner: string): Holdings =>
  toHoldings(on.get(HOLDINGS, [owner, owner, owner, owner]))

/** In the application's transaction, which has the only writer. */
export async function forgetOwner(on: Queries, owner: string): Promise<Holdings> {
  const found = toHoldings(await on.get(HOLDINGS, [owner, owner, owner, owner]))
  if ((await on.get(FIND_KEY)) === undefined) await on.run(MAKE_KEY, [newTombstoneKey()])
  const hash = ownerHash(String((await on.get(FIND_KEY))?.['value']), owner)
  const statements = forgetting(
    { owner, hash },
    {
      now: NOW,
      newId: 'lower(hex(randomblob(16)))',
      payload: `json_object('blobKey', r.blob_key)`,
      // It completes as soon as nothing is owed, without being counted.
      owed: () => 'owes_effects = 0',
    },
  )
  await on.run(`UPDATE landfall_operations SET forgotten_at = ${NOW} WHERE owner = ?`, [owner])
  for (const { sql, args } of statements) await on.run(sql, args)
  // The rate is forgotten with its owner.
  await on.run(
    `DELETE FROM landfall_usage WHERE owner = ? AND open_operations = 0 AND reserved_bytes = 0 AND stored_bytes = 0 AND stored_references = 0`,
    [owner],
  )
  return found
}
