// In what the two databases differ. A statement that is the same in both is written once, in `statements/`, with these
// words in it.

export interface Dialect {
  /**
   * Whether one connection writes at a time, and asking it costs nothing. Else others write in between, so that rows are
   * locked, and each statement is a way there and back, so that what belongs together is one statement.
   */
  readonly hasOneWriter: boolean
  /** The database's clock in milliseconds since 1970; the same in all places of one statement. */
  readonly now: string
  /** The function for the greater one of two numbers. */
  readonly greater: 'MAX' | 'GREATEST'
  /** A JSON array as a table: an element is `alias.value`, and if it is an array itself its first part `alias.value ->> 0`. */
  eachJson(argument: string, alias: string): string
  /** Behind a SELECT: locks what it has found, of this table or alias, and waits until no other transaction has it locked. */
  lock(of: string): string
  /** Behind a SELECT: locks what it has found, and passes over what another transaction has: that one does the same work. */
  lockDue(of: string): string
  /** A new id of an effect. */
  readonly newId: string
  /** The payload of the effect that removes a blob, as JSON. */
  removalOf(blobKey: string): string
  /** What a declaration asks of its owner's row of usage; with a rate, it counts there as well. */
  usage(isRated: boolean): UsageWords
  readonly owed: OwedWords
  /**
   * Prolongs leases, given as rows of owner, id, token and holder in `:leases`, by `:lease_ms`; answers owner, id and
   * lease_token of those that are still held.
   */
  readonly renewal: string
}

export interface UsageWords {
  /** Before the INSERT. */
  readonly before: string
  /** Behind FROM: a row with `open_operations`, `used_bytes` and `used_files`. */
  readonly from: string
  /** Also a condition of the INSERT. */
  readonly allowed: string
  /** A statement that comes after it; null: none. */
  readonly after: string | null
}

/** How an operation's row says what it owes. */
export interface OwedWords {
  readonly column: 'owes_effects' | 'owed_effects'
  /** What the column says of so many effects. */
  of(effects: number): number
  /** Of `o`, which is referenced: nothing is owed. */
  readonly nothing: string
  /** In a SET list, with a comma behind it: one effect more is owed. */
  readonly oneMore: string
  /** In a SET list: counted again, for an operation whose effects have the owner `:alias`. */
  readonly recount: string
  /** How many referenced operations there are, at most `BACKLOG_MOST` of each sort: some SELECTs of rows to count. */
  readonly referenced: readonly string[]
  /** An effect was delivered, of the operation that is named in `from` as `owner` and `operation_id`. */
  delivered(from: string): string
}
