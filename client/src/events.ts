import type { KindTypes } from '@landfall/shared'
import type { Unauthenticated, Upload, UploaderEvents, Warning } from './types.js'

type Events = UploaderEvents<Record<string, KindTypes>>
type Handler = (told: never) => unknown

/** Who wants to know, and who was told: each handler once a page for each upload, also when it comes late. */
export interface Telling {
  on<E extends keyof Events>(event: E, handler: Events[E], outcomes: readonly Upload[]): () => void
  outcome: (event: 'referenced' | 'failed', upload: Upload) => void
  warn: (code: Warning['code'], cause?: unknown) => void
  unauthenticated: (reason: Unauthenticated['reason']) => void
  /** Something threw that cannot: it must not go unseen. */
  fault: (cause: unknown) => void
}

const fault = (cause: unknown): void => {
  if (typeof reportError === 'function') reportError(cause)
}

export function createTelling(): Telling {
  const handlers = new Map<keyof Events, Set<Handler>>()
  const told = new WeakMap<Handler, Set<string>>()

  const call = async (event: keyof Events, handler: Handler, value: unknown): Promise<void> => {
    try {
      await handler(value as never) // oxlint-disable-line typescript/no-unsafe-type-assertion -- `on` pairs the event with its handler
    } catch (cause) {
      if (event !== 'warning' && handlers.get('warning')?.size) tell('warning', { code: 'handler-failed', cause })
      // Nobody listens: a broken handler must not go unseen.
      else fault(cause)
    }
  }
  const tell = (event: keyof Events, value?: unknown): void => {
    for (const handler of handlers.get(event) ?? []) void call(event, handler, value)
  }
  const tellOutcome = (event: keyof Events, handler: Handler, upload: Upload): void => {
    const ids = told.get(handler) ?? new Set()
    told.set(handler, ids)
    if (ids.has(upload.id)) return
    ids.add(upload.id)
    void call(event, handler, upload)
  }
  return {
    on(event, handler, outcomes) {
      const all = handlers.get(event) ?? new Set()
      handlers.set(event, all.add(handler))
      queueMicrotask(() => {
        if (all.has(handler)) for (const upload of outcomes) tellOutcome(event, handler, upload)
      })
      return () => void all.delete(handler)
    },
    outcome(event, upload) {
      for (const handler of handlers.get(event) ?? []) tellOutcome(event, handler, upload)
    },
    warn: (code, cause) => tell('warning', { code, cause }),
    unauthenticated: (reason) => tell('unauthenticated', { reason }),
    fault,
  }
}
