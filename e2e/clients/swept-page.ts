/** What the page of the client's sweep says to the harness, each by a request that it waits for. */
export type Note =
  | { readonly note: 'added'; readonly id: string; readonly seed: number }
  /** The application was told an outcome, by an event; or, of a cancelled one, by `settled`. */
  | {
      readonly note: 'told'
      readonly id: string
      readonly ok: boolean
      readonly problem: string | null
      /** As it was told, whole. */
      readonly reference: object | null
    }
  | { readonly note: 'acknowledging'; readonly id: string }
  | { readonly note: 'acknowledged'; readonly id: string }
  /** `cancel()` was called; `promised`: it has resolved. */
  | { readonly note: 'cancelling'; readonly id: string }
  | { readonly note: 'promised'; readonly id: string }
  /** The upload needs its file again. */
  | { readonly note: 'asked'; readonly id: string; readonly why: string }
  | { readonly note: 'warned'; readonly code: string }
  /** Nothing is left to do in this page. */
  | { readonly note: 'finished' }

/** A moment at which the page can be killed. */
export interface Moment {
  readonly name: string
  readonly nth: number
  readonly when: 'before' | 'after'
}

export interface Wanted {
  readonly files: readonly { readonly sizeBytes: number; readonly seed: number }[]
  /** Cancels each as soon as bytes of it were accepted. */
  readonly cancels: boolean
  readonly acknowledges: boolean
  /** Bytes of copies at most; null: the client's own default. */
  readonly copyBytes: number | null
  /** First another file of the same size, when the file is asked for and bytes of it were accepted. */
  readonly picksWrong: boolean
}

/** What is read of a journal's record as the browser has it. */
export interface StoredRecord {
  readonly id: string
  readonly digest: string | null
  readonly copy: 'none' | 'made' | 'verified'
  readonly standing: { readonly point: string; readonly acceptedBytes?: number }
}

/** `window.swept` of that page. */
export interface SweptPage {
  /** Reads past the client; before `begin` only. */
  journal(): Promise<StoredRecord[]>
  /** Forgets everything that this browser has stored; before `begin` only. */
  forget(): Promise<void>
  /** Starts the client, picks files, is told outcomes, picks again what it is asked for. */
  begin(wanted: Wanted): Promise<void>
}
