import type { KindTypes } from '@landfall/shared'
import type { Unauthenticated, Upload, UploaderEvents, Warning } from './types.js'

type Events = UploaderEvents<Record<string, KindTypes>>
type Handler = (told: never) => unknown

/**
 * The event handlers, and what each was called with. Each handler is called once per page for each upload, even if it
 * was added late.
 */
export interface EventHub {
  on<E extends keyof Events>(event: E, handler: Events[E], outcomes: readonly Upload[]): () => void
  outcome: (event: 'referenced' | 'failed', upload: Upload) => void
  warn: (code: Warning['code'], cause?: unknown) => void
  /** The first warning of each code, the oldest first. The same list object until there is a new warning. */
  warnings: () => readonly Warning[]
  unauthenticated: (reason: Unauthenticated['reason']) => void
  /** Reports an error that cannot occur. It must not stay unnoticed. */
  fault: (cause: unknown) => void
}

const fault = (cause: unknown): void => {
  if (typeof reportError === 'function') reportError(cause)
}

/** @param onWarning Called when a code has its first warning. */
export function createEventHub(onWarning: () => void): EventHub {
  const handlers = new Map<keyof Events, Set<Handler>>()
  const told = new WeakMap<Handler, Set<string>>()
  let warnings: readonly Warning[] = []

  const call = async (event: keyof Events, handler: Handler, value: unknown): Promise<void> => {
    try {
      await handler(value as never) // oxlint-disable-line typescript/no-unsafe-type-assertion -- `on` pairs the event with its handler
    } catch (cause) {
      // If there is no handler for warnings, or that handler itself fails, the browser reports the error, so that it is
      // noticed.
      if (event === 'warning' || !handlers.get('warning')?.size) fault(cause)
      if (event !== 'warning') warn('handler-failed', cause)
    }
  }
  const tell = (event: keyof Events, value?: unknown): void => {
    for (const handler of handlers.get(event) ?? []) void call(event, handler, value)
  }
  const warn = (code: Warning['code'], cause?: unknown): void => {
    const warning: Warning = { code, cause }
    const isNew = warnings.every((known) => known.code !== code)
    if (isNew) warnings = [...warnings, warning]
    tell('warning', warning)
    if (isNew) onWarning()
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
      const before: readonly Warning[] = event === 'warning' ? warnings : []
      queueMicrotask(() => {
        if (!all.has(handler)) return
        for (const upload of outcomes) tellOutcome(event, handler, upload)
        for (const warning of before) void call(event, handler, warning)
      })
      return () => void all.delete(handler)
    },
    outcome(event, upload) {
      for (const handler of handlers.get(event) ?? []) tellOutcome(event, handler, upload)
    },
    warn,
    warnings: () => warnings,
    unauthenticated: (reason) => tell('unauthenticated', { reason }),
    fault,
  }
}
