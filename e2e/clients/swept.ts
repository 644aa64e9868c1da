/** The functions that the swept page offers as `window.swept`. */
export interface Swept {
  start(): Promise<void>
  /** Picks a file, and returns the id of its operation. */
  add(sizeBytes: number, seed: number): string
  /** Declares a digest that is not the digest of the file, and sends it. */
  addWrong(sizeBytes: number, seed: number): string
  /** Picks the file of an earlier page again, as soon as the client asks for it. */
  pickAgain(id: string, sizeBytes: number, seed: number): void
  /** Resolves with the outcome that the user is told, after it was acknowledged. */
  settled(id: string): Promise<{ readonly ok: boolean; readonly problem?: { readonly type: string } }>
  cancel(id: string): Promise<void>
  /** Asks the application to take the reference back, and repeats the request until there is an answer. */
  remove(id: string): Promise<void>
  /** How many bytes the server has acknowledged. */
  accepted(id: string): number
  known(): { readonly id: string; readonly point: string }[]
}
