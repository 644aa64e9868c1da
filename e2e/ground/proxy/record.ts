/** What a fault does. */
export type FaultKind = 'reset' | 'fin' | 'black-hole' | 'swallow-answer' | 'answer' | 'delay'

/** One request as the proxy saw it. The record grows while the request runs. Times are those of `performance.now()`. */
export interface RecordedRequest {
  readonly method: string
  /** With the query string. */
  readonly path: string
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** The number of the connection, counted from 1. */
  readonly connection: number
  /**
   * The number of the request on its connection. 1 means a new connection, and more means a connection that was kept
   * alive.
   */
  readonly nth: number
  /** Payload of the body that the client sent over the line, whether or not it reached the server. */
  bodyBytes: number
  /** The part of that payload that was passed on to the server. */
  forwardedBodyBytes: number
  /** The first 4 KiB of the body. */
  bodyStart: Buffer
  /** Whether the whole request arrived. */
  complete: boolean
  /**
   * The status that the server answered (or the proxy instead of it), even if the client never saw it; null before
   * there is one.
   */
  status: number | null
  answerHeaders: Readonly<Record<string, string>>
  /** Payload of the answer, as the server sent it. */
  answerBytes: number
  /** The first 4 KiB of the answer. */
  answerStart: Buffer
  /** Whether the whole answer was passed on to the client. */
  answered: boolean
  /** The armed fault that the request met. */
  fault: FaultKind | null
  readonly startedAtMs: number
  endedAtMs: number | null
}

export interface RecordedConnection {
  readonly connection: number
  /** The server's port; null while nothing had to go to the server. */
  targetPort: number | null
  /** All bytes that crossed the line from the client (`upBytes`) and to the client, heads included. */
  upBytes: number
  downBytes: number
  requests: number
  open: boolean
}

const START_BYTES = 4096

/** Keeps the first bytes of a body, for tests that read it. */
export function keepStart(start: Buffer, more: Buffer): Buffer {
  const room = START_BYTES - start.length
  return room <= 0 ? start : Buffer.concat([start, more.subarray(0, room)])
}
