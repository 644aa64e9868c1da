export interface TimeLimit {
  /** Fires when the time is over. */
  readonly signal: AbortSignal
  /** It begins anew. */
  again(): void
  /** It is not needed any more. */
  end(): void
}

/**
 * Not `AbortSignal.timeout`: of `AbortSignal.any([other, AbortSignal.timeout(ms)])` nothing holds the second one, and in
 * Node 20 (seen with 20.20.2) it is collected as garbage and never fires. Here the timer holds it.
 */
export function timeLimit(ms: number): TimeLimit {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(new DOMException('it took too long', 'TimeoutError')), ms)
  timer.unref()
  return { signal: controller.signal, again: () => void timer.refresh(), end: () => clearTimeout(timer) }
}
