// The differences between the two databases. A statement that is the same in both is written once, in `statements/`,
// and contains the parts that are defined here.

export interface Dialect {
  /**
   * True: one connection writes at a time, and a statement needs no network. False: other connections write in between,
   * so rows must be locked. Each statement then costs a round trip, so writes that belong together are one statement.
   */
  readonly hasOneWriter: boolean
  /** The database's clock in milliseconds since 1970. It is the same everywhere within one statement. */
  readonly now: string
  /** The function for the greater of two numbers. */
  readonly greater: 'MAX' | 'GREATEST'
  /**
   * Makes a table from a JSON array. An element is `alias.value`. If it is an array itself, its first part is
   * `alias.value ->> 0`.
   */
  eachJson(argument: string, alias: string): string
  /**
   * Ends a SELECT: it locks the rows found in this table or alias, and waits for transactions that have them locked.
   */
  lock(of: string): string
  /**
   * Ends a SELECT: it locks the rows found, and skips rows that another transaction has locked, because that
   * transaction does the same work.
   */
  lockDue(of: string): string
  /** An expression for a new effect id. */
  readonly newId: string
  /** The payload of the effect that removes a blob, as JSON. */
  removalOf(blobKey: string): string
  /** How a declaration reads its owner's row of usage. With a rate, the declaration is also counted there. */
  usage(isRated: boolean): UsageWords
  readonly owed: OwedWords
  /**
   * Prolongs leases by `:lease_ms`. They are given in `:leases` as rows of owner, id, token and holder. It returns
   * owner, id and lease_token of those that are still held.
   */
  readonly renewal: string
}

export interface UsageWords {
  /** The text before the INSERT. */
  readonly before: string
  /** The text after FROM: a row with `open_operations`, `used_bytes` and `used_files`. */
  readonly from: string
  /** A further condition of the INSERT. */
  readonly allowed: string
  /** A statement that runs after the INSERT. null: none. */
  readonly after: string | null
}

/** How an operation's row records what it owes. */
export interface OwedWords {
  readonly column: 'owes_effects' | 'owed_effects'
  /** The column's value for this many effects. */
  of(effects: number): number
  /** A condition: the referenced operation `o` owes nothing. */
  readonly nothing: string
  /** For a SET list, with a trailing comma: one more effect is owed. */
  readonly oneMore: string
  /** For a SET list: the effects are counted again, for an operation whose effects have the owner `:alias`. */
  readonly recount: string
  /** Finds referenced operations, at most `BACKLOG_MOST` of each sort. These are SELECTs whose rows are counted. */
  readonly referenced: readonly string[]
  /** Records that an effect was delivered. `from` names its operation as `owner` and `operation_id`. */
  delivered(from: string): string
}
