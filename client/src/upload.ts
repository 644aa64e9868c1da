import { CANCELLED } from '@landfall/shared'
import type { LiveOperation } from './live.js'
import { cancelled, isSettled, noted } from './operation.js'
import type { Outcome, Upload, UploadError, UploadErrorCode } from './types.js'

const MESSAGES = {
  closed: 'The uploader is closed. Call start() to open it again',
  forgotten: 'The record of this upload was purged, or acknowledged in another tab',
} as const satisfies Record<UploadErrorCode, string>

export const uploadError = (code: UploadErrorCode): UploadError =>
  Object.assign(new Error(MESSAGES[code]), { name: 'UploadError' as const, code })

/** The application's handle, and the function that reports that the outcome is certain. */
export interface Handle {
  readonly upload: Upload
  /** Checks whether there is an outcome now. The first outcome holds. */
  readonly settle: () => void
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  const settled: { resolve?: (value: T) => void; reject?: (error: Error) => void } = {}
  const promise = new Promise<T>((resolve, reject) => Object.assign(settled, { resolve, reject }))
  return { promise, resolve: (value) => settled.resolve?.(value), reject: (error) => settled.reject?.(error) }
}

export function createHandle(live: LiveOperation, hurry: () => void): Handle {
  const { promise: outcome, resolve, reject } = deferred<Outcome>()
  // The application need not wait for it.
  outcome.catch(() => {})

  const upload: Upload = {
    id: live.id,
    kind: live.record().kind,
    file: live.record().file,
    metadata: live.record().metadata,
    get reference() {
      return live.snapshot().reference
    },
    get problem() {
      const { standing } = live.record()
      return standing.point === 'failed' ? standing.problem : null
    },
    pause() {
      void live.amend(noted({ paused: true }))
      const { point } = live.record().standing
      if (point === 'intended' || point === 'declared') live.interrupt()
    },
    resume() {
      void live.amend(noted({ paused: false }))
      const { state } = live.activity()
      if (state !== 'waiting' && state !== 'paused') return
      live.session.attempts = 0
      live.interrupt()
      hurry()
    },
    cancel: () => live.amend(cancelled),
    provide(file) {
      if (live.session.source !== null || isSettled(live.record().standing)) return
      live.session.pick = file
      live.interrupt()
    },
    settled: ({ signal } = {}) =>
      new Promise((onOutcome, onFailure) => {
        const abort = (): void => onFailure(signal?.reason)
        if (signal?.aborted) return abort()
        signal?.addEventListener('abort', abort, { once: true })
        void outcome.then(onOutcome, onFailure).finally(() => signal?.removeEventListener('abort', abort))
      }),
    async acknowledge() {
      if (isSettled(live.record().standing)) await live.amend(() => undefined)
    },
    snapshot: () => live.snapshot(),
  }

  return {
    upload,
    settle() {
      const { standing } = live.record()
      if (standing.point === 'referenced') resolve({ ok: true, reference: standing.reference })
      else if (standing.point === 'failed') resolve({ ok: false, problem: standing.problem })
      else if (!live.gone()) return
      else if (standing.point === 'cancelled') resolve({ ok: false, problem: CANCELLED })
      else reject(uploadError('forgotten'))
    },
  }
}
