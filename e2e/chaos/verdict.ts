import type { RecordedRequest } from '../ground/proxy.js'
import { digestOf, type Operation } from './operation.js'
import type { Looked } from './looked.js'
import type { Reconciled } from './system.js'

/** The result of a run. `violations` lists what a correct system would not show. */
export interface Verdict {
  readonly operations: number
  readonly toldSuccess: number
  /** How many references the operations with a reported success have. */
  readonly referencesOfSuccesses: number
  /** How many references all operations have. The completer also finishes operations whose users have gone. */
  readonly references: number
  readonly duplicates: number
  readonly successWithoutReference: number
  /** Operations whose users were told a cancellation or a failure, although there is a reference. */
  readonly failureWithReference: number
  readonly wrongBytes: number
  /** Operations whose users were told a failure and had not cancelled. */
  readonly failures: number
  /** Operations whose users still wait. */
  readonly toldNothing: number
  readonly orphansBefore: number
  /** Null: the system has no command that reconciles. */
  readonly orphansAfter: number | null
  readonly differenceBefore: number | null
  readonly differenceAfter: number | null
  readonly open: number
  readonly stalled: number
  readonly unfinished: number
  readonly sentBytes: number
  readonly fileBytes: number
  /** The operations of which most bytes were sent again. */
  readonly sentAgain: readonly string[]
  readonly violations: readonly string[]
}

/** Clients send some bytes again. They may send at most so many times the bytes of the files. */
export const MOST_SENT = 1.1

export async function judge(
  operations: readonly Operation[],
  requests: readonly RecordedRequest[],
  looked: { before: Looked; after: Looked; reconciled: Reconciled | null },
): Promise<Verdict> {
  const { before, after, reconciled } = looked
  const violations: string[] = []
  const began = operations.filter(({ startedAtMs }) => startedAtMs !== null)
  const count = (what: string | null, holds: (operation: Operation) => boolean): number => {
    const found = began.filter(holds)
    if (what !== null) for (const operation of found) violations.push(`${what}: ${inWords(operation)}`)
    return found.length
  }
  const referencesOf = ({ id }: Operation): number => after.references.get(id)?.length ?? 0
  const isToldSuccess = ({ told }: Operation): boolean => told === 'success'

  const wrong = new Set<Operation>()
  for (const operation of began) {
    const stored = after.references.get(operation.id) ?? []
    // A user who cancelled was told so. If there is a row nevertheless, it is counted as a failure with a reference.
    if (stored.length === 0 || operation.told === 'cancelled') continue
    const expected = digestOf(operation.planned)
    for (const { digest } of stored) if ((await digest()) !== expected) wrong.add(operation)
  }
  const known = new Set(began.map(({ id }) => id))
  const strangers = [...after.references.keys()].filter((id) => !known.has(id))
  for (const id of strangers) violations.push(`a reference of an upload that no client began: ${id}`)
  for (const where of after.unfinished) violations.push(`neither final, nor open, nor stalled: ${where}`)
  if (reconciled !== null && reconciled.differenceAfter > 0)
    violations.push(`${reconciled.differenceAfter} differ after reconcile: ${reconciled.refused ?? ''}`)
  if (reconciled !== null) for (const key of after.orphans) violations.push(`an orphan after reconcile: ${key}`)

  const finished = began.filter(isToldSuccess)
  const sent = sentOf(finished, requests)
  const sentBytes = finished.reduce((sum, operation) => sum + (sent.get(operation) ?? 0), 0)
  const fileBytes = finished.reduce((sum, { planned }) => sum + planned.sizeBytes, 0)
  const again = (operation: Operation): number => (sent.get(operation) ?? 0) - operation.planned.sizeBytes
  if (sentBytes > MOST_SENT * fileBytes)
    violations.push(`${sentBytes} bytes were sent for ${fileBytes}: more than ${MOST_SENT} times`)

  return {
    operations: began.length,
    toldSuccess: finished.length,
    referencesOfSuccesses: finished.reduce((sum, operation) => sum + referencesOf(operation), 0),
    references: [...after.references.values()].reduce((sum, files) => sum + files.length, 0),
    duplicates: count('several references', (operation) => referencesOf(operation) > 1),
    successWithoutReference: count(
      'told success without a reference',
      (operation) => isToldSuccess(operation) && referencesOf(operation) === 0,
    ),
    failureWithReference: count(
      'told failure with a reference',
      (operation) => (operation.told === 'failure' || operation.told === 'cancelled') && referencesOf(operation) > 0,
    ),
    wrongBytes: count('wrong bytes', (operation) => wrong.has(operation)),
    failures: count('told failure', ({ told }) => told === 'failure'),
    toldNothing: count('its user still waits', ({ attended, told }) => attended && told === null),
    orphansBefore: before.orphans.length,
    orphansAfter: reconciled === null ? null : after.orphans.length,
    differenceBefore: reconciled?.differenceBefore ?? null,
    differenceAfter: reconciled?.differenceAfter ?? null,
    open: after.open,
    stalled: after.stalled,
    unfinished: after.unfinished.length,
    sentBytes,
    fileBytes,
    sentAgain: finished
      .filter((operation) => again(operation) > 0)
      .toSorted((a, b) => again(b) - again(a))
      .slice(0, 8)
      .map((operation) => `${again(operation)} bytes again: ${inWords(operation)}: ${requestsOf(operation, requests)}`),
    violations,
  }
}

/** The payload bytes that clients sent over the line, whether or not they reached the server. */
function sentOf(finished: readonly Operation[], requests: readonly RecordedRequest[]): ReadonlyMap<Operation, number> {
  const byId = new Map(finished.flatMap((operation) => [...operation.fileIds].map((id) => [id, operation] as const)))
  const sent = new Map<Operation, number>()
  for (const { method, path, bodyBytes } of requests) {
    const operation = method === 'PATCH' ? byId.get(path.split('?')[0]?.split('/').at(-1) ?? '') : undefined
    if (operation !== undefined) sent.set(operation, (sent.get(operation) ?? 0) + bodyBytes)
  }
  return sent
}

/** How its bytes were sent: the number of bytes in each request, and the answer. */
const requestsOf = ({ fileIds }: Operation, requests: readonly RecordedRequest[]): string =>
  requests
    .filter(({ method, path }) => method === 'PATCH' && fileIds.has(path.split('?')[0]?.split('/').at(-1) ?? ''))
    .map(({ bodyBytes, status }) => `${bodyBytes} → ${status ?? 'nothing'}`)
    .join(', ')

function inWords({ planned, id, via, told, why }: Operation): string {
  const cancelled = planned.cancelAfterMs === null ? '' : ', to be cancelled'
  return `#${planned.index} ${id} (${planned.sizeBytes} bytes, ${via}${cancelled}), told ${told ?? 'nothing'}${why === null || why === '' ? '' : `: ${why}`}`
}
