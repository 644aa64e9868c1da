/**
 * What the page of the client's sweep reports to the harness. Each report is a request, and the page waits for its
 * answer.
 */
export type Note =
  | { readonly note: 'added'; readonly id: string; readonly seed: number }
  /** The application was told an outcome. An event told it, or `settled` if the upload was cancelled. */
  | {
      readonly note: 'told'
      readonly id: string
      readonly ok: boolean
      readonly problem: string | null
      /** The whole reference, as the application was told it. */
      readonly reference: object | null
    }
  | { readonly note: 'acknowledging'; readonly id: string }
  | { readonly note: 'acknowledged'; readonly id: string }
  /** `cancel()` was called. `promised` means that its promise has resolved. */
  | { readonly note: 'cancelling'; readonly id: string }
  | { readonly note: 'promised'; readonly id: string }
  /** The upload needs its file again. */
  | { readonly note: 'asked'; readonly id: string; readonly why: string }
  | { readonly note: 'warned'; readonly code: string }
  /** The page has nothing left to do. */
  | { readonly note: 'finished' }

/** A moment at which the page can be killed. */
export interface Moment {
  readonly name: string
  readonly nth: number
  readonly when: 'before' | 'after'
}

export interface Wanted {
  readonly files: readonly { readonly sizeBytes: number; readonly seed: number }[]
  /** Cancels each upload as soon as some of its bytes were accepted. */
  readonly cancels: boolean
  readonly acknowledges: boolean
  /** How many bytes of copies the client may keep. Null means the client's default. */
  readonly copyBytes: number | null
  /**
   * When the client asks for a file of which bytes were accepted, the page first picks another file of the same size.
   */
  readonly picksWrong: boolean
}

/** The fields that are read from a record of the journal, as the browser stores it. */
export interface StoredRecord {
  readonly id: string
  readonly digest: string | null
  readonly copy: 'none' | 'made' | 'verified'
  readonly standing: { readonly point: string; readonly acceptedBytes?: number }
}

/** The functions of that page, in `window.swept`. */
export interface SweptPage {
  /** Reads the journal without the client. Only to be called before `begin`. */
  journal(): Promise<StoredRecord[]>
  /** Deletes everything that this browser has stored. Only to be called before `begin`. */
  forget(): Promise<void>
  /** Starts the client, picks files, receives outcomes, and picks files again when the client asks for them. */
  begin(wanted: Wanted): Promise<void>
}
