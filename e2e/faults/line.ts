import type { ArmedFault, Fault, RecordedRequest } from '../ground/proxy.js'
import { s3CallOf } from '../ground/s3.js'
import type { Stage, System } from './stage.js'

/** The kinds of calls to the object store that belong to an upload. Both systems' calls have these names. */
export type StoreCall = 'create' | 'part' | 'complete' | 'whole' | 'tail' | 'read' | 'other'

export interface CallOf {
  readonly call: StoreCall
  /** Only calls for this part. */
  readonly part?: number
}

/** The line to the object store, restricted to the calls of one upload. */
export interface Line {
  /** Default: the fault strikes once. */
  arm(fault: Fault, which: CallOf | 'all', times?: number): ArmedFault
  /** Resolves when the fault meets a call or, with `answered`, when that call has its answer. */
  struck(armed: ArmedFault, when?: 'answered'): Promise<void>
  /** Resolves when such a call was answered without an error. */
  answered(which: CallOf): Promise<void>
  /** Aborts the multipart upload, as a lifecycle rule or an operator does. */
  abortFromOutside(): Promise<void>
}

const CALLS: Readonly<Record<string, StoreCall>> = {
  CreateMultipartUpload: 'create',
  UploadPart: 'part',
  CompleteMultipartUpload: 'complete',
  PutObject: 'whole',
}

function callOf({ method, path }: RecordedRequest): StoreCall {
  if (method === 'GET' || method === 'HEAD') return 'read'
  const [name = ''] = path.split('?')
  const call = CALLS[s3CallOf(method, path)] ?? 'other'
  if (call !== 'whole') return call
  if (name.endsWith('.info')) return 'other'
  return name.endsWith('.part') || name.includes('/tails/') ? 'tail' : 'whole'
}

const isSuch =
  (which: CallOf | 'all') =>
  (request: RecordedRequest): boolean => {
    if (which === 'all') return true
    const number = new URLSearchParams(request.path.split('?')[1]).get('partNumber')
    return callOf(request) === which.call && (which.part === undefined || Number(number) === which.part)
  }

const WITHIN_MS = 60_000

/** `objectName` returns the text that the names of the upload's objects contain; null while it is not known. */
export function lineOf({ store }: System, { bucket }: Stage, objectName: () => string | null): Line {
  const isOwn = ({ path }: RecordedRequest): boolean => {
    const name = objectName()
    return name !== null && path.includes(name)
  }
  return {
    arm: (fault, which, times = 1) =>
      store.arm(fault, { match: (request) => isOwn(request) && isSuch(which)(request), times }),
    async struck(armed, when) {
      const isStruck = (request: RecordedRequest): boolean =>
        armed.matched.includes(request) && (when === undefined || request.status !== null)
      await store.waitFor(isStruck, WITHIN_MS)
    },
    async answered(which) {
      await store.waitFor((request) => isOwn(request) && isSuch(which)(request) && request.status === 200, WITHIN_MS)
    },
    abortFromOutside: () => bucket.abort((name) => name.includes(objectName() ?? name)),
  }
}
