import type { FileFacts, FinalPoint, JsonObject, JsonValue, Problem } from '@landfall/shared'
import type { OperationKey, OperationRecord } from '../operation.js'

/** What step 0 inserts: all intents, before anything else happens. */
export interface Intent extends OperationKey {
  readonly kind: string
  readonly file: FileFacts
  readonly metadata: JsonObject
  readonly validated: JsonValue
  readonly uploadMetadata: string | null
  /** Digest over kind, size, name, type and metadata in canonical form: "the same facts". */
  readonly facts: string
  /** `pending`: it will follow. */
  readonly digest: `sha-256=:${string}:` | 'pending' | null
  readonly blobKey: string
  readonly expiresAfterMs: number
  readonly maxOpenPerOwner: number
  /** What the owner's references and open operations may hold together, in bytes; null: any number. */
  readonly quotaBytes: number | null
  /** How many references and open operations the owner may have together; null: any number. */
  readonly quotaFiles: number | null
  /** How often the owner may declare; null: as often as it likes. */
  readonly rate: DeclarationRate | null
}

/** `count` at once, and after that one more each time a `count`-th of `perMs` has passed. Both are whole numbers. */
export interface DeclarationRate {
  readonly count: number
  readonly perMs: number
}

/** How an operation ended of which only a tombstone is left; `completed`: its reference was removed. */
export type TombstonePoint = 'completed' | FinalPoint

export type Declared =
  | { readonly outcome: 'created' | 'existing'; readonly operation: OperationRecord }
  | { readonly outcome: 'mismatch' }
  | { readonly outcome: 'too-many-open' }
  | { readonly outcome: 'over-quota'; readonly usedBytes: number }
  | { readonly outcome: 'over-file-quota'; readonly usedFiles: number }
  /** Sooner than the rate allows. */
  | { readonly outcome: 'too-many-declared'; readonly retryInMs: number }
  /** The id was used before, and only its tombstone is left. */
  | { readonly outcome: 'forgotten'; readonly point: TombstonePoint }

export interface LedgerOperations {
  /** Step 0. The same id with the same facts answers what is there. */
  declare(intent: Intent): Promise<Declared>
  find(key: OperationKey): Promise<OperationRecord | null>
  /** How the operation ended whose row is gone; null: this owner never used the id, or its row is still there. */
  tombstone(key: OperationKey): Promise<TombstonePoint | null>
  findMany(owner: string, ids: readonly string[]): Promise<OperationRecord[]>
  /** The owner's open operations, oldest first, at most `limit`, behind the cursor `after`. */
  listOpen(owner: string, page: { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** Sets a digest that was pending; once. */
  setDigest(key: OperationKey, digest: string): Promise<'set' | 'conflict' | 'closed'>
  /** Step x: only from before `referenced`; needs no lease, and takes it from whoever has it. */
  cancel(key: OperationKey, problem: Problem): Promise<OperationRecord | null>
  /** For each a word that is another one after a change, whichever node has made it; null: there is no such operation. */
  versions(keys: readonly OperationKey[]): Promise<(string | null)[]>
  /** Calls back after each commit that changed an operation. A hint: it may be lost, and says nothing of other nodes. */
  onChange(listener: (operation: OperationRecord) => void): () => void
}
