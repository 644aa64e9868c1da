import { v7 as uuidv7 } from 'uuid'
import { isReady, notReady, type Part, partsOf, RECOUNT, refuseLostTables, type Standing } from '../parts.js'
import { changes, type Plan } from '../query.js'
import type { UploadError } from '../../lib/errors.js'
import { meta, metaOnce, setMeta, store, tombstoneKey } from './marks.js'

/** The differences between the engines when they make the tables. */
export interface TableMaking {
  readonly migrations: readonly (readonly string[])[]
  /** Makes the table that contains the version of the others. It runs before all migrations. */
  readonly metaTable: string
  /** Reports whether the tables are as this version needs them. It only reads. */
  standing(): Plan<Standing>
  /** Runs first in the transaction that makes the tables. */
  begin(): Plan<void>
  /** Runs a statement of a migration. The application's drizzle-kit may already have done what it does. */
  apply(statement: string): Plan<void>
  /** Makes dropped parts again. */
  mend(parts: readonly Part[]): Plan<void>
}

export interface Opened {
  readonly identity: string
  readonly store: 'new' | 'known'
}

export function tableStatements({ migrations, metaTable, standing, begin, apply, mend }: TableMaking) {
  const { tables, others } = partsOf(migrations)

  /** null: there is something to migrate. */
  function* migrated(): Plan<Opened | null> {
    const now = yield* standing()
    return now.identity !== null && isReady(now, migrations.length)
      ? { identity: now.identity, store: yield* store() }
      : null
  }

  return {
    migrated,

    *unready(): Plan<UploadError> {
      return notReady(yield* standing(), migrations.length)
    },

    /** Must run in a transaction. */
    *migrate(): Plan<Opened> {
      yield* begin()
      // Another process may have migrated the tables while this one waited.
      const ready = yield* migrated()
      if (ready !== null) return ready
      yield* changes(metaTable)
      const version = Number((yield* meta('version')) ?? 0)
      for (const statement of migrations.slice(version).flat()) yield* apply(statement)
      // If a newer version of the server has migrated the tables, its version number stays.
      if (version < migrations.length) yield* setMeta('version', String(migrations.length))
      const { missing } = yield* standing()
      refuseLostTables(tables, missing)
      const parts = missing.map((name) => others.get(name)).filter((part) => part !== undefined)
      if (parts.length > 0) yield* mend(parts)
      if (parts.some(({ kind }) => kind === 'TRIGGER')) for (const statement of RECOUNT) yield* changes(statement)
      const identity = yield* metaOnce('identity', uuidv7)
      yield* tombstoneKey()
      return { identity, store: yield* store() }
    },
  }
}
