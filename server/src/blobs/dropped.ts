/** The other way in which a store and its ledger come apart. */
export const ELSE_DROPPED =
  "If it is the same database, its landfall_* tables were dropped, as `drizzle-kit push` does with every table that the application's schema does not name: restore them from a backup, and say tablesFilter: ['!landfall_*'] in drizzle.config.ts"
