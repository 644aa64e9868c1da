import type { Holdings } from '../../ports/ledger/references.js'
import type { Retention } from '../../ports/ledger/inventory.js'
import type { TombstonePoint } from '../../ports/ledger/operations.js'
import { attendedSince } from '../clock-marks.js'
import { meta } from './inventory.js'
import { NOW, type Queries } from './query.js'
import type { SqlRow } from '../sqlite/client/connection.js'
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

// What retention and the right to erasure do. Rows that another node has just now are passed over.

/** Makes it where there is none: of several nodes that do so at once, one wins. */
export async function tombstoneKey(on: Queries): Promise<string> {
  for (;;) {
    const known = await meta(on, TOMBSTONE_KEY)
    if (known !== null) return known
    await on.run(`INSERT INTO landfall_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING`, [
      TOMBSTONE_KEY,
      newTombstoneKey(),
    ])
  }
}

export const tombstone = async (on: Queries, id: string, hash: string): Promise<TombstonePoint | null> =>
  toTombstone(await on.get(TOMBSTONE, [id, hash]))

/** Until when what happened is over. */
async function over(
  on: Queries,
  { finalMs, effectsMs }: Retention,
): Promise<{ nowAt: number; endedAt: number | null; deliveredAt: number | null }> {
  const row = await on.get(`SELECT ${NOW} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock_steps') AS steps`)
  const nowAt = Number(row?.['now'])
  const steps = stepsIn(row?.['steps'])
  const since = (ms: number | null): number | null => (ms === null ? null : attendedSince(steps, nowAt, ms))
  return { nowAt, endedAt: since(finalMs), deliveredAt: since(effectsMs) }
}

/** In a transaction. */
export async function retire(
  on: Queries,
  retention: Retention,
  limit: number,
): Promise<{ operations: number; effects: number }> {
  const { nowAt, endedAt, deliveredAt } = await over(on, retention)
  const locked = (sql: string, of: string): string => `${sql} FOR UPDATE OF ${of} SKIP LOCKED`
  const forgotten = await on.all(locked(FORGOTTEN_OPERATIONS, 'o'), [nowAt, limit])
  const left = limit - forgotten.length
  const ended =
    endedAt === null || left === 0 ? [] : await on.all(locked(ENDED_OPERATIONS, 'o'), [endedAt, endedAt, left])
  const operations = await bury(on, [...forgotten, ...ended])
  const effects =
    deliveredAt === null
      ? 0
      : await on.run(
          `DELETE FROM landfall_effects WHERE effect_id IN (${locked(DELIVERED_EFFECTS, 'landfall_effects')})`,
          [deliveredAt, limit],
        )
  return { operations, effects }
}

/** A JSON argument as a table. */
const ROWS = `json_array_elements(CAST(CAST(? AS text) AS json)) AS ended`

async function bury(on: Queries, rows: readonly SqlRow[]): Promise<number> {
  if (rows.length === 0) return 0
  const key = await tombstoneKey(on)
  // A forgotten owner's operation may be among those that ended long ago as well.
  const unique = new Map(
    rows.map(toEnded(key)).map((operation) => [JSON.stringify([operation.owner, operation.id]), operation]),
  )
  const operations: readonly Ended[] = [...unique.values()]
  const said = JSON.stringify(operations.map(({ owner, id, hash, point }) => [owner, id, hash, point]))
  // One after the other: the trigger on the deletion looks for the tombstone.
  await on.run(
    `INSERT INTO landfall_tombstones (id, owner_hash, point) SELECT ended ->> 1, ended ->> 2, ended ->> 3 FROM ${ROWS} ON CONFLICT DO NOTHING`,
    [said],
  )
  if (operations.some(({ unnamed }) => unnamed))
    await on.run(
      `UPDATE landfall_operations o SET owner_hash = ended ->> 2 FROM ${ROWS}
       WHERE o.owner = ended ->> 0 AND o.id = ended ->> 1 AND o.owner_hash IS NULL`,
      [said],
    )
  await on.run(
    `DELETE FROM landfall_effects e USING ${ROWS}
     WHERE e.owner = ended ->> 0 AND e.operation_id = ended ->> 1 AND (e.delivered_at IS NOT NULL OR e.given_up_at IS NOT NULL)`,
    [said],
  )
  // Where an operator has just asked again for an effect that was given up, the operation stays until that is settled.
  const deleted = await on.run(
    `DELETE FROM landfall_operations o USING ${ROWS} WHERE o.owner = ended ->> 0 AND o.id = ended ->> 1
       AND NOT EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id)`,
    [said],
  )
  await on.run(
    `DELETE FROM landfall_usage WHERE owner IN (
       SELECT owner FROM landfall_usage WHERE owner IN (SELECT ended ->> 0 FROM ${ROWS}) AND ${usesNothing(NOW)} FOR UPDATE SKIP LOCKED)`,
    [said],
  )
  return deleted
}

export const holdings = async (on: Queries, owner: string): Promise<Holdings> =>
  toHoldings(await on.get(HOLDINGS, [owner, owner, owner, owner]))

/** In the application's transaction. */
export async function forgetOwner(on: Queries, owner: string): Promise<Holdings> {
  const hash = ownerHash(await tombstoneKey(on), owner)
  // As `remove` does: the references first, and then their operations, these in the order in which leases are prolonged;
  // between them what is owed.
  // What is driven just now ends first, and then has its reference.
  await on.all(
    `SELECT COUNT(*) AS n FROM (
       SELECT 1 FROM landfall_operations o JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner
       WHERE o.owner = ? ORDER BY o.id FOR UPDATE OF r) AS locked`,
    [owner],
  )
  // Who settles one has it before its operation; what nobody settles any more is retired after its operation.
  await on.all(
    `SELECT COUNT(*) AS n FROM (
       SELECT 1 FROM landfall_effects WHERE owner = ? AND delivered_at IS NULL AND given_up_at IS NULL
       ORDER BY effect_id FOR UPDATE) AS locked`,
    [owner],
  )
  await on.run(
    `WITH locked AS MATERIALIZED (SELECT owner, id FROM landfall_operations WHERE owner = ? ORDER BY id FOR UPDATE)
     UPDATE landfall_operations o SET forgotten_at = ${NOW} FROM locked WHERE o.owner = locked.owner AND o.id = locked.id`,
    [owner],
  )
  const found = await holdings(on, owner)
  const statements = forgetting(
    { owner, hash },
    {
      now: NOW,
      newId: 'CAST(gen_random_uuid() AS text)',
      payload: `CAST(json_build_object('blobKey', r.blob_key) AS text)`,
      owed: (alias) =>
        `owed_effects = (SELECT COUNT(*) FROM landfall_effects e
           WHERE e.owner = '${alias}' AND e.operation_id = landfall_operations.id AND e.delivered_at IS NULL)`,
    },
  )
  for (const { sql, args } of statements) await on.run(sql, args)
  // The rate is forgotten with its owner. What is declared at the same time keeps the row.
  await on.run(
    `DELETE FROM landfall_usage WHERE owner = ? AND open_operations = 0 AND reserved_bytes = 0 AND stored_bytes = 0 AND stored_references = 0`,
    [owner],
  )
  return found
}
