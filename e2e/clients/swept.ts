/** What the swept page offers as `window.swept`. */
export interface Swept {
  start(): Promise<void>
  /** Picks a file; answers the operation's id. */
  add(sizeBytes: number, seed: number): string
  /** Declares a digest that is not the file's, and sends it. */
  addWrong(sizeBytes: number, seed: number): string
  /** Picks the file of an earlier page again, as soon as that is asked for. */
  pickAgain(id: string, sizeBytes: number, seed: number): void
  /** What the user is told in the end, acknowledged. */
  settled(id: string): Promise<{ readonly ok: boolean; readonly problem?: { readonly type: string } }>
  cancel(id: string): Promise<void>
  /** Asks the application to take the reference back, until it has answered. */
  remove(id: string): Promise<void>
  /** Bytes that the server has acknowledged. */
  accepted(id: string): number
  known(): { readonly id: string; readonly point: string }[]
}
