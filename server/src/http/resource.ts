import { createHash } from 'node:crypto'
import { filePath, isOpen, type Operation } from '@landfall/shared'
import type { OperationRecord } from '../ports/operation.js'

const iso = (at: number): string => new Date(at).toISOString()

/** The operation as the protocol shows it. `base` is the path under which the routes are mounted. */
export function toResource(operation: OperationRecord, base: string): Operation {
  const { reference } = operation
  const url = base + filePath(operation.id)
  return {
    id: operation.id,
    kind: operation.kind,
    recoveryPoint: operation.point,
    stalled: operation.stalled,
    file: operation.file,
    metadata: operation.metadata,
    offset: operation.offset,
    uploadUrl: url,
    digest: operation.digest ?? operation.content?.digest ?? null,
    reference: reference && {
      operationId: operation.id,
      size: reference.size,
      type: reference.type,
      digest: reference.digest,
      digestSource: reference.digestSource,
      storedAt: iso(reference.storedAt),
      url,
      data: reference.data,
    },
    problem: operation.problem,
    createdAt: iso(operation.createdAt),
    updatedAt: iso(operation.updatedAt),
    expiresAt: isOpen(operation.point) ? iso(operation.expiresAt) : null,
  }
}

/** An entity tag over everything to which a client can react. The time of the last change alone does not change it. */
export function entityTag(resources: readonly Operation[]): string {
  const hash = createHash('sha256')
  for (const { updatedAt: _updatedAt, expiresAt: _expiresAt, ...rest } of resources) hash.update(JSON.stringify(rest))
  return `"${hash.digest('base64url').slice(0, 27)}"`
}
