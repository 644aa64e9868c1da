import { UploadError } from '../lib/errors.js'
import { OPEN } from './rows.js'

/** An index, a trigger, or a trigger's function, with the statement that makes it. */
export interface Part {
  readonly kind: 'INDEX' | 'TRIGGER' | 'FUNCTION'
  readonly statement: string
}

/** What the migrations make apart from columns, as it is after the last of them. */
export interface Parts {
  readonly tables: readonly string[]
  /** By name, in the order of making. */
  readonly others: ReadonlyMap<string, Part>
}

const MAKES = /^CREATE (?:OR REPLACE )?(?:UNIQUE )?(TABLE|INDEX|TRIGGER|FUNCTION) (?:IF NOT EXISTS )?(\w+)/
const DROPS = /^DROP (TABLE|INDEX|TRIGGER|FUNCTION) (?:IF EXISTS )?(\w+)/

/** Read from the migrations themselves, so that no list of them can be forgotten. */
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

/** How the tables stand: as this version needs them, or what of that is not so. */
export interface Standing {
  /** 0: there are none. */
  readonly version: number
  /** Null: not begun. */
  readonly identity: string | null
  readonly missing: readonly string[]
}

/** As this version needs them; a newer one may have been here, and its tables are its own to judge. */
export const isReady = ({ version, identity, missing }: Standing, needed: number): boolean =>
  identity !== null && (version > needed || (version === needed && missing.length === 0))

/** What is not so, by number and name. */
export function whatIsMissing({ version, identity, missing }: Standing, needed: number): string {
  if (version === 0) return `the ledger has no tables yet: version 0 of ${needed}`
  const parts = [
    version < needed
      ? `the ledger's tables are at version ${version}, and this Landfall needs version ${needed}`
      : null,
    version >= needed && identity === null ? 'the ledger has lost its identity' : null,
    missing.length > 0 ? `of version ${version} there is missing: ${missing.join(', ')}` : null,
  ].filter((part) => part !== null)
  return parts.length === 0 ? `the ledger's tables are at version ${version}, and nothing is missing` : parts.join('; ')
}

/** When a trigger was missing that counts what an owner has open and holds, some changes were not counted. So all is counted again. */
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
 * For what another program has dropped. Indexes, triggers and functions are made again; rows are not.
 *
 * @throws UploadError `setup` when tables are gone
 */
export function refuseLostTables(tables: readonly string[], missing: readonly string[]): void {
  const lost = tables.filter((table) => missing.includes(table))
  if (lost.length > 0)
    throw new UploadError(
      'setup',
      `the ledger had these tables, and they are gone: ${lost.join(', ')}. Landfall never drops them; \`drizzle-kit push\` drops every table that the application's schema does not name: restore them from a backup, for only their rows say which stored file belongs to which owner, and say tablesFilter: ['!landfall_*'] in drizzle.config.ts`,
    )
}

/** With `migrate: 'off'`, and when an operator asks whether the tables are in order. */
export const notReady = (standing: Standing, needed: number): UploadError =>
  new UploadError(
    'setup',
    `${whatIsMissing(standing, needed)}. Run \`landfall migrate\`, or call uploads.migrate(), with a database user that may create tables`,
  )
