import type { ArmedFault, Fault, RecordedRequest } from '../ground/proxy.js'
import { s3CallOf } from '../ground/s3.js'
import type { Stage, System } from './stage.js'

/** What is asked of the object store: what counts of an upload, under the names of either system. */
export type StoreCall = 'create' | 'part' | 'complete' | 'whole' | 'tail' | 'read' | 'other'

export interface CallOf {
  readonly call: StoreCall
  /** Only this part. */
  readonly part?: number
}

/** The line to the object store, as far as it belongs to one upload. */
export interface Line {
  /** Default: once. */
  arm(fault: Fault, which: CallOf | 'all', times?: number): ArmedFault
  /** Resolves when the fault meets a call; `answered`: when that has an answer. */
  struck(armed: ArmedFault, when?: 'answered'): Promise<void>
  /** Resolves when such a call was answered well. */
  answered(which: CallOf): Promise<void>
  /** What a lifecycle rule does, or an operator: the multipart upload is gone. */
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

/** `objectName`: what names of its objects contain; null while that is not known. */
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
