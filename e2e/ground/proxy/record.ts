/** What a fault does. */
export type FaultKind = 'reset' | 'fin' | 'black-hole' | 'swallow-answer' | 'answer' | 'delay'

/** One request as the proxy saw it. It grows while the request runs; times are of `performance.now()`. */
export interface RecordedRequest {
  readonly method: string
  /** With the query string. */
  readonly path: string
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** Number of the connection, from 1. */
  readonly connection: number
  /** Number of the request on its connection: 1 is a fresh connection, more is a kept-alive one. */
  readonly nth: number
  /** Payload of the body that the client sent over the line, whatever became of it. */
  bodyBytes: number
  /** The part of it that was passed on to the server. */
  forwardedBodyBytes: number
  /** The first 4 KiB of the body. */
  bodyStart: Buffer
  /** The whole request came in. */
  complete: boolean
  /** What the server answered (or the proxy in its place), also when the client never saw it; null: nothing yet. */
  status: number | null
  answerHeaders: Readonly<Record<string, string>>
  /** Payload of the answer, as the server sent it. */
  answerBytes: number
  /** The first 4 KiB of it. */
  answerStart: Buffer
  /** The whole answer was passed on to the client. */
  answered: boolean
  /** The armed fault that it met. */
  fault: FaultKind | null
  readonly startedAtMs: number
  endedAtMs: number | null
}

export interface RecordedConnection {
  readonly connection: number
  /** Of the server; null: nothing had to go there yet. */
  targetPort: number | null
  /** All bytes that crossed the line, heads included: from the client, and to the client. */
  upBytes: number
  downBytes: number
  requests: number
  open: boolean
}

const START_BYTES = 4096

/** Keeps the first bytes of a body, for a test that wants to look inside. */
export function keepStart(start: Buffer, more: Buffer): Buffer {
  const room = START_BYTES - start.length
  return room <= 0 ? start : Buffer.concat([start, more.subarray(0, room)])
}
