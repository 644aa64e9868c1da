/** What a process knows about time when it asks the ledger to check its clock. */
export interface ClockLook {
  /** Time since the last check, by the monotonic clock. 0: the process has just started and knows nothing about before. */
  readonly passedMs: number
  /** Since the last check, the process saw the clock being set ahead and back. */
  readonly disturbed: boolean
  /** How long leases on operations last, and those on effects. */
  readonly leaseMs: number
  readonly effectLeaseMs: number
  /** Also search for rows that are due later than any pause could have made them. null: not this time. */
  readonly longestPauses: { readonly operationMs: number; readonly effectMs: number } | null
}

export interface ClockSettled {
  readonly nowAt: number
  /** By how much the ledger's clock was set, ahead or back. 0: it was not set. */
  readonly steppedMs: number
}

export interface LedgerMarks {
  /**
   * Creates or upgrades the tables, and makes dropped triggers and indexes again. Several processes may call it at once.
   * Tables that are in order are only read, which needs no right to create any. `check` changes nothing. Returns the
   * ledger's identity, and whether a blob store was opened with it before.
   *
   * @throws UploadError `setup` for `check` when something is missing, with its number and name; and for both when tables
   *   that existed are gone
   */
  migrate(how?: 'apply' | 'check'): Promise<{ identity: string; store: 'new' | 'known' }>
  /**
   * From now on the store is known, and an empty one is refused. Call it after the store has its identity, never
   * before.
   */
  rememberStore(): Promise<void>
  /**
   * The key of the owner tags. The first call makes it at random; from then on it is the same for all processes. Call it
   * after `migrate`. It is secret: with it, one can compute the tag of any owner.
   */
  ownerKey(): Promise<string>
  /** The ledger's restore mark, which only grows, and when the ledger was found to be older than its store, if ever. */
  mark(): Promise<{ mark: number; restoredAt: number | null }>
  /** Sets a higher mark, and records or forgets that the ledger was restored from a backup. */
  advanceMark(to: { mark: number; restored: boolean | null }): Promise<void>
  /** Records that a completer is alive. */
  heartbeat(): Promise<void>
  /**
   * Compares the ledger's clock with the time that has passed for this process. If the clock was set by more than a
   * minute, or no process ran for that long, one transaction moves the times in the rows. It moves them ahead so that
   * nothing expires although its client had no chance to come back, and back so that nothing is due later than pauses
   * and leases last.
   */
  settleClock(look: ClockLook): Promise<ClockSettled>
  /** How much time has passed since then, without the time by which the clock was set ahead or no process ran. */
  attendedMs(sinceAt: number): Promise<number>
}
