import type { FileFacts, FinalPoint, JsonObject, JsonValue, Problem } from '@landfall/shared'
import type { OperationKey, OperationRecord } from '../operation.js'

/** The row that step 0 inserts before anything else happens. */
export interface Intent extends OperationKey {
  readonly kind: string
  readonly file: FileFacts
  readonly metadata: JsonObject
  readonly validated: JsonValue
  readonly uploadMetadata: string | null
  /** A digest of kind, size, name, type and metadata in canonical form. Two declarations with the same digest are the same. */
  readonly facts: string
  /** `pending`: the client sends it later. */
  readonly digest: `sha-256=:${string}:` | 'pending' | null
  readonly blobKey: string
  readonly expiresAfterMs: number
  readonly maxOpenPerOwner: number
  /** The limit for the bytes of the owner's references and open operations together. null: no limit. */
  readonly quotaBytes: number | null
  /** The limit for the number of the owner's references and open operations together. null: no limit. */
  readonly quotaFiles: number | null
  /** How often the owner may declare. null: no limit. */
  readonly rate: DeclarationRate | null
}

/** `count` declarations at once, then one more each time a `count`-th of `perMs` has passed. Both are whole numbers. */
export interface DeclarationRate {
  readonly count: number
  readonly perMs: number
}

/** How an operation ended that has only a tombstone left. `completed`: its reference was removed. */
export type TombstonePoint = 'completed' | FinalPoint

export type Declared =
  | { readonly outcome: 'created' | 'existing'; readonly operation: OperationRecord }
  | { readonly outcome: 'mismatch' }
  | { readonly outcome: 'too-many-open' }
  | { readonly outcome: 'over-quota'; readonly usedBytes: number }
  | { readonly outcome: 'over-file-quota'; readonly usedFiles: number }
  /** The declaration came sooner than the rate allows. */
  | { readonly outcome: 'too-many-declared'; readonly retryInMs: number }
  /** The id was used before, and only its tombstone is left. */
  | { readonly outcome: 'forgotten'; readonly point: TombstonePoint }

export interface LedgerOperations {
  /** Step 0. A repetition with the same id and the same facts returns the existing operation. */
  declare(intent: Intent): Promise<Declared>
  find(key: OperationKey): Promise<OperationRecord | null>
  /** How an operation ended that has no row any more. null: this owner never used the id, or its row still exists. */
  tombstone(key: OperationKey): Promise<TombstonePoint | null>
  findMany(owner: string, ids: readonly string[]): Promise<OperationRecord[]>
  /** The owner's open operations, oldest first, at most `limit`, starting after the id `after`. */
  listOpen(owner: string, page: { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** Sets a pending digest. It can be set once. */
  setDigest(key: OperationKey, digest: string): Promise<'set' | 'conflict' | 'closed'>
  /** Step x. It is possible only before `referenced`. It needs no lease, and ends any lease that exists. */
  cancel(key: OperationKey, problem: Problem): Promise<OperationRecord | null>
  /** For each operation, a text that differs after every change by any node. null: there is no such operation. */
  versions(keys: readonly OperationKey[]): Promise<(string | null)[]>
  /** Calls the listener after each commit of this process that changed an operation. A call may be lost. */
  onChange(listener: (operation: OperationRecord) => void): () => void
}
