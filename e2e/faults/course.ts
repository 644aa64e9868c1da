import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { pseudoRandomBytes } from '../ground/files.js'
import type { RecordedRequest } from '../ground/proxy.js'
import { type Sending, sendByOperation, sendByTus, type Told } from './clients.js'
import { type Line, lineOf } from './line.js'
import type { Stage, System } from './stage.js'

/** The result of one upload. */
export interface Course {
  readonly told: Told
  /** What is stored under the name that the system gave the file. */
  readonly stored: 'right' | 'wrong' | 'nothing'
  /** Whether the client was told an offset that is lower than one before. */
  readonly offsetFell: boolean
  /** How often the client created the upload. */
  readonly creations: number
  /** How many calls of the object store the fault struck. */
  readonly struck: number
  /** The number of rows of the application. */
  readonly rows: number
  /**
   * The number of Landfall's references, and of the ids under which the effect is owed or was delivered. The usual
   * stack has neither.
   */
  readonly references: number
  readonly effects: number
  readonly tookMs: number
}

export type ClientName = 'tus' | 'operation'
const SIZE_BYTES = 12 * 1024 * 1024

/** A running upload, as the code that disturbs it sees it. */
export interface Upload {
  readonly system: System
  readonly operationId: string
  readonly sizeBytes: number
  /** The line to the object store. */
  readonly line: Line
  /** Resolves when the server has made the upload and no byte of it was sent. */
  readonly created: Promise<void>
}

export interface Disturbance {
  /** Default 12 MiB, which is two full parts and one that is not full. */
  readonly sizeBytes?: number
  /** Default: all bytes in one request. */
  readonly chunkBytes?: number
  /** Called before the first byte is sent. */
  strike(upload: Upload): void | Promise<void>
}

/** Follows one upload through one system while `strike` disturbs it. */
export async function follow(
  stage: Stage,
  system: System,
  client: ClientName,
  { sizeBytes = SIZE_BYTES, chunkBytes, strike }: Disturbance,
): Promise<Course> {
  const operationId = randomUUID()
  const bytes = pseudoRandomBytes(sizeBytes, operationId)
  // Landfall chooses the names of its objects.
  let objectName: string | null = system.name === 'peer' ? operationId : null
  const line = lineOf(system, stage, () => objectName)
  let tellCreated = (): void => {}
  const created = new Promise<void>((resolve) => (tellCreated = resolve))
  const sending: Sending = {
    operationId,
    bytes,
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
    async created() {
      if (system.name === 'landfall') objectName = await blobKeyOf(system, operationId)
      tellCreated()
    },
  }
  const startedMs = performance.now()
  const send = client === 'tus' ? sendByTus : sendByOperation
  const [told] = await Promise.all([send(system, sending), strike({ system, operationId, sizeBytes, line, created })])
  const tookMs = performance.now() - startedMs
  if (system.name === 'landfall') await untilTold(stage, system, operationId)
  return {
    told,
    stored: await storedOf(stage, system, objectName, told, createHash('sha256').update(bytes).digest('hex')),
    offsetFell: falls(system.front.requests, operationId),
    creations: system.front.requests.filter((request) => isCreation(request, operationId)).length,
    struck: system.store.requests.filter(
      ({ path, fault }) => fault !== null && objectName !== null && path.includes(objectName),
    ).length,
    tookMs,
    ...(await rowsOf(stage, system, operationId)),
  }
}

async function blobKeyOf(system: System, operationId: string): Promise<string | null> {
  const [row] = await system.query<{ blob_key: string }>('SELECT blob_key FROM landfall_operations WHERE id = $1', [
    operationId,
  ])
  return row?.blob_key ?? null
}

const FINAL = /^(cancelled|expired|rejected)$/

/** A node that takes an effect and loses the answer because PostgreSQL crashes keeps the effect for two minutes. */
const TOLD_MS = 180_000

/**
 * Waits until the operation's effect was delivered, or until an operation without an effect has had its bytes removed.
 */
async function untilTold(stage: Stage, system: System, operationId: string): Promise<void> {
  for (const deadline = Date.now() + TOLD_MS; Date.now() < deadline; await sleep(100)) {
    if (stage.effectsOf(operationId).size > 0) return
    const [row] = await system.query<{ point: string; cleanup_due: number }>(
      'SELECT point, cleanup_due FROM landfall_operations WHERE id = $1',
      [operationId],
    )
    if (row !== undefined && FINAL.test(row.point) && row.cleanup_due === 0) return
  }
}

async function storedOf(
  { bucket, ground }: Stage,
  { name }: System,
  objectName: string | null,
  told: Told,
  sha256: string,
): Promise<Course['stored']> {
  const stored = await bucket.digestOf(name === 'landfall' ? `${ground.prefix}blobs/${objectName ?? ''}` : told.id)
  if (stored === null) return 'nothing'
  return stored === sha256 ? 'right' : 'wrong'
}

const isCreation = ({ method, headers, path, status }: RecordedRequest, operationId: string): boolean =>
  (method === 'POST' && (headers['upload-metadata'] ?? '').includes(btoa(operationId)) && status === 201) ||
  (method === 'PUT' && path.endsWith(operationId) && status === 201)

/** Whether the client was told an offset of this operation that is lower than one that it was told before. */
function falls(requests: readonly RecordedRequest[], operationId: string): boolean {
  let highest = 0
  const told = requests.filter(({ path, answered }) => answered && path.includes(operationId))
  for (const request of told.toSorted((a, b) => (a.endedAtMs ?? 0) - (b.endedAtMs ?? 0))) {
    const offset = offsetIn(request)
    if (offset === null) continue
    if (offset < highest) return true
    highest = offset
  }
  return false
}

function offsetIn({ method, answerHeaders, answerStart }: RecordedRequest): number | null {
  const header = answerHeaders['upload-offset']
  if (header !== undefined) return Number(header)
  if (method !== 'PUT') return null
  const { offset } = JSON.parse(answerStart.toString()) as { offset?: number }
  return offset ?? null
}

async function rowsOf(stage: Stage, system: System, operationId: string) {
  const count = async (table: string, column: string): Promise<number> => {
    const sql = `SELECT count(*) AS n FROM ${table} WHERE ${column} = $1`
    return Number((await system.query<{ n: string }>(sql, [operationId]))[0]?.n)
  }
  return {
    rows: await count('arrivals', 'name'),
    references: system.name === 'landfall' ? await count('landfall_references', 'operation_id') : 0,
    effects: system.name === 'landfall' ? await effectIds(stage, system, operationId) : 0,
  }
}

/**
 * How many ids the effect has; 0 if it was not delivered. If a delivery could not be recorded, the effect is still owed,
 * and the id under which it is owed counts too.
 */
async function effectIds(stage: Stage, system: System, operationId: string): Promise<number> {
  const delivered = stage.effectsOf(operationId)
  const owed = await system.query<{ effect_id: string }>(
    'SELECT effect_id FROM landfall_effects WHERE operation_id = $1',
    [operationId],
  )
  return delivered.size === 0 ? 0 : new Set([...delivered, ...owed.map(({ effect_id }) => effect_id)]).size
}
