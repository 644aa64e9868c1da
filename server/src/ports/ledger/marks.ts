/** What a process knows of time when it asks the ledger to look at its clock. */
export interface ClockLook {
  /** By the monotonic clock since its last look; 0: it has just begun, and knows nothing of the time before. */
  readonly passedMs: number
  /** It has seen the clock set and set back since. */
  readonly disturbed: boolean
  /** How long leases on operations last, and those on effects. */
  readonly leaseMs: number
  readonly effectLeaseMs: number
  /** Also to be looked for: what is due later than any pause could have put it. null: not now. */
  readonly longestPauses: { readonly operationMs: number; readonly effectMs: number } | null
}

export interface ClockSettled {
  readonly nowAt: number
  /** How far the ledger's clock was set, ahead or back; 0: it was not. */
  readonly steppedMs: number
}

export interface LedgerMarks {
  /**
   * Creates or upgrades the tables, and makes again what of them somebody has dropped (triggers, indexes). Safe when
   * several processes start at once; tables that are in order are only read, which needs no right to create any.
   * `check` changes nothing. Answers the ledger's identity, and whether a blob store was opened with it before.
   *
   * @throws UploadError `setup` for `check`, when something is missing: what, by number and name; for both when tables
   *   are gone that were there
   */
  migrate(how?: 'apply' | 'check'): Promise<{ identity: string; store: 'new' | 'known' }>
  /** From now on the store is known: one that is empty is not it. After the store has its identity, never before. */
  rememberStore(): Promise<void>
  /**
   * The key of the owners' tags: random, made once by whoever asks first, the same for all processes and for ever. After
   * `migrate`. Secret: who has it can tell which owner a tag stands for.
   */
  ownerKey(): Promise<string>
  /** The ledger's mark, which only grows; and when it was found to be older than its store, if ever. */
  mark(): Promise<{ mark: number; restoredAt: number | null }>
  /** Sets a higher mark, and records or forgets that the ledger was restored from a backup. */
  advanceMark(to: { mark: number; restored: boolean | null }): Promise<void>
  /** Says that the completer lives. */
  heartbeat(): Promise<void>
  /**
   * Compares the ledger's clock with the time that has passed for this process. Where it was set by more than a minute,
   * and where nobody was there for so long, one transaction moves the times of rows: ahead, so that nothing ends
   * earlier for want of a client; back, so that nothing is due and no lease ends later than pauses and leases last.
   */
  settleClock(look: ClockLook): Promise<ClockSettled>
  /** How much time has passed since then, without that by which the clock was set ahead and in which nobody was there. */
  attendedMs(sinceAt: number): Promise<number>
}
