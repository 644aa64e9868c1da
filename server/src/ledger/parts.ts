import { UploadError } from '../lib/errors.js'
import { OPEN } from './rows.js'

/** An index, a trigger, or a trigger's function, with the statement that makes it. */
export interface Part {
  readonly kind: 'INDEX' | 'TRIGGER' | 'FUNCTION'
  readonly statement: string
}

/** What the migrations make in addition to columns, as it is after the last of them. */
export interface Parts {
  readonly tables: readonly string[]
  /** By name, in the order in which they are made. */
  readonly others: ReadonlyMap<string, Part>
}

const MAKES = /^CREATE (?:OR REPLACE )?(?:UNIQUE )?(TABLE|INDEX|TRIGGER|FUNCTION) (?:IF NOT EXISTS )?(\w+)/
const DROPS = /^DROP (TABLE|INDEX|TRIGGER|FUNCTION) (?:IF EXISTS )?(\w+)/

/** Reads the parts from the migrations themselves, so that no separate list can become outdated. */
export function partsOf(migrations: readonly (readonly string[])[]): Parts {
  const tables = new Set<string>()
  const others = new Map<string, Part>()
  for (const statement of migrations.flat()) {
    const [, dropped, gone = ''] = DROPS.exec(statement) ?? []
    if (dropped === 'TABLE') tables.delete(gone)
    else if (dropped !== undefined) others.delete(gone)
    const [, kind, name = ''] = MAKES.exec(statement) ?? []
    if (kind === 'TABLE') tables.add(name)
    else if (kind === 'INDEX' || kind === 'TRIGGER' || kind === 'FUNCTION') {
      others.delete(name)
      others.set(name, { kind, statement })
    }
  }
  return { tables: [...tables], others }
}

/** The state of the tables: what is missing compared with what this version needs. */
export interface Standing {
  /** 0: there are no tables. */
  readonly version: number
  /** null: the ledger has no identity yet, or has lost it. */
  readonly identity: string | null
  readonly missing: readonly string[]
}

/**
 * Whether the tables are as this version needs them. If a newer version has changed them, only that version can judge
 * them.
 */
export const isReady = ({ version, identity, missing }: Standing, needed: number): boolean =>
  identity !== null && (version > needed || (version === needed && missing.length === 0))

/** What is missing, by number and name. */
export function whatIsMissing({ version, identity, missing }: Standing, needed: number): string {
  if (version === 0) return `the ledger has no tables yet: version 0 of ${needed}`
  const parts = [
    version < needed
      ? `the ledger's tables are at version ${version}, and this Landfall needs version ${needed}`
      : null,
    version >= needed && identity === null ? 'the ledger has lost its identity' : null,
    missing.length > 0 ? `these parts of version ${version} are missing: ${missing.join(', ')}` : null,
  ].filter((part) => part !== null)
  return parts.length === 0 ? `the ledger's tables are at version ${version}, and nothing is missing` : parts.join('; ')
}

/**
 * While a trigger was missing that counts what an owner has open and stores, some changes were not counted. So
 * everything is counted again.
 */
export const RECOUNT: readonly string[] = [
  `INSERT INTO landfall_usage (owner)
     SELECT owner FROM (SELECT owner FROM landfall_operations UNION SELECT owner FROM landfall_references) AS known
     WHERE true ON CONFLICT (owner) DO NOTHING`,
  `UPDATE landfall_usage SET
     open_operations = (SELECT COUNT(*) FROM landfall_operations o WHERE o.owner = landfall_usage.owner AND o.point IN ${OPEN}),
     reserved_bytes = (SELECT COALESCE(SUM(o.file_size), 0) FROM landfall_operations o WHERE o.owner = landfall_usage.owner AND o.point IN ${OPEN}),
     stored_bytes = (SELECT COALESCE(SUM(r.size), 0) FROM landfall_references r WHERE r.owner = landfall_usage.owner),
     stored_references = (SELECT COUNT(*) FROM landfall_references r WHERE r.owner = landfall_usage.owner)`,
]

/**
 * Refuses tables that another program has dropped. Indexes, triggers and functions can be made again, but rows cannot.
 *
 * @throws UploadError `setup` when tables are gone
 */
export function refuseLostTables(tables: readonly string[], missing: readonly string[]): void {
  const lost = tables.filter((table) => missing.includes(table))
  if (lost.length > 0)
    throw new UploadError(
      'setup',
      `these tables of the ledger existed and are gone: ${lost.join(', ')}. Landfall never drops them, but \`drizzle-kit push\` drops every table that the application's schema does not name. Restore them from a backup, because only their rows say which stored file belongs to which owner, and set tablesFilter: ['!landfall_*'] in drizzle.config.ts`,
    )
}

/** The error with `migrate: 'off'`, and when an operator asks whether the tables are in order. */
export const notReady = (standing: Standing, needed: number): UploadError =>
  new UploadError(
    'setup',
    `${whatIsMissing(standing, needed)}. Run \`landfall migrate\`, or call uploads.migrate(), with a database user that may create tables`,
  )
