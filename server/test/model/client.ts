import type { Operation, Problem } from '@landfall/shared'
import { digestOf } from './memory-blobs.js'
import { contentOf, type Scenario, sizeOf } from './scenarios.js'
import type { Server, World } from './world.js'

/** What the answers told the user of one upload. */
export interface Told {
  /** An answer of PUT, GET or PATCH said that there is a reference. */
  success: boolean
  cancelled: boolean
  /** DELETE was answered with 409. */
  kept: boolean
  removed: boolean
  /** An answer was 410, so only a tombstone is left. */
  gone: boolean
  /** The code of the final rejection. */
  no: string | null
  /** A digest of this value was accepted. */
  digest: string | null
  acknowledged: number
  /** Contradictions between answers. */
  readonly contradictions: string[]
}

export type Client = ReturnType<typeof createClient>

const ROUNDS = 14

/** Behaves like Landfall's client: declares, sends and asks, and returns until it has a final answer. */
export function createClient(world: World, scenario: Scenario, id: string, seed: number) {
  const size = sizeOf(scenario)
  const content = contentOf(size, seed)
  const wrong = digestOf(contentOf(size + 1, seed + 1))
  const told: Told = {
    success: false,
    cancelled: false,
    kept: false,
    removed: false,
    gone: false,
    no: null,
    digest: null,
    acknowledged: 0,
    contradictions: [],
  }
  const ends = (): number[] => scenario.sizes.map((_, n) => scenario.sizes.slice(0, n + 1).reduce((a, b) => a + b, 0))

  const declared = ((): string | undefined => {
    switch (scenario.digest) {
      case 'none':
        return undefined
      case 'right':
        return digestOf(content)
      case 'wrong':
        return wrong
      default:
        return 'pending'
    }
  })()

  function acknowledge(offset: number): void {
    if (offset < told.acknowledged) told.contradictions.push(`4: acknowledged ${told.acknowledged}, then ${offset}`)
    told.acknowledged = Math.max(told.acknowledged, offset)
  }

  function endWith(no: string): void {
    if (told.success) told.contradictions.push(`1: reported success, and then ${no}`)
    if (told.no !== null && told.no !== no) told.contradictions.push(`1: reported ${told.no}, and then ${no}`)
    told.no = no
  }

  function note(operation: Operation): Operation {
    acknowledge(operation.offset)
    const { recoveryPoint, reference, problem } = operation
    if (recoveryPoint === 'referenced' || recoveryPoint === 'completed') {
      if (told.no !== null && told.no !== 'removed')
        told.contradictions.push(`1: reported ${told.no}, and then success`)
      if (reference !== null) told.success = true
      else if (problem?.code !== 'removed') told.contradictions.push('1: referenced without a reference')
    } else if (['cancelled', 'expired', 'rejected'].includes(recoveryPoint)) endWith(problem?.code ?? recoveryPoint)
    return operation
  }

  async function put(server: Server, digest = declared): Promise<Operation | number | null> {
    const answer = await server.request('PUT', `/operations/${id}`, {
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        kind: scenario.kind ?? 'plain',
        file: { name: 'a', size, type: 'application/octet-stream' },
        ...(digest === undefined ? {} : { digest }),
      }),
    })
    if (answer === null) return null
    if (answer.status === 410) told.gone = true
    if (answer.status > 201) return answer.status
    const operation = note((await answer.json()) as Operation)
    if (digest !== undefined && digest !== 'pending' && operation.digest === digest) told.digest ??= digest
    return operation
  }

  /** The acknowledged offset, or null if there was no answer or one that says to ask again. */
  async function patch(server: Server, offset: number): Promise<number | null> {
    const upTo = scenario.oneRequest === true ? size : (ends().find((end) => end > offset) ?? size)
    const chunks = scenario.oneRequest === true ? ends() : [upTo]
    const pieces = chunks.filter((end) => end > offset).map((end, n, all) => content.slice(all[n - 1] ?? offset, end))
    const answer = await server.request('PATCH', `/files/${id}`, {
      headers: {
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': String(offset),
        'Content-Type': 'application/offset+octet-stream',
      },
      body: streamOf(pieces) as never,
    })
    if (answer === null) return null
    if (answer.status !== 204) return null
    const acknowledged = Number(answer.headers.get('Upload-Offset'))
    acknowledge(acknowledged)
    return acknowledged
  }

  async function cancel(server: Server): Promise<boolean> {
    const answer = await server.request('DELETE', `/operations/${id}`)
    if (answer?.status === 409) {
      if (((await answer.json()) as Problem).code === 'already-referenced') told.kept = true
      return true
    }
    if (answer?.status === 410) told.gone = true
    if (answer?.status !== 200) return false
    const operation = note((await answer.json()) as Operation)
    if (operation.recoveryPoint === 'cancelled') told.cancelled = true
    return true
  }

  async function remove(server: Server): Promise<boolean> {
    const removed = await server.remove(id).catch(() => false)
    if (removed) told.removed = true
    return removed
  }

  const forget = (server: Server): Promise<unknown> => server.forget()

  /** Lets the completers of all processes run while a client waits. */
  async function wait(): Promise<void> {
    await world.pass(1_000)
    for (const server of world.alive()) await server.runOnce()
  }

  const over = (): boolean => told.no !== null || told.cancelled || told.kept || told.removed || told.gone

  async function upload(): Promise<void> {
    let cancelled = false
    for (let round = 0; round < ROUNDS; round++) {
      if (round > 0) {
        if (scenario.leaves === true) return
        await wait()
        // A node that died keeps others away for the time of its lease.
        if (round % 3 === 2) await world.pass(31_000)
      }
      if (over()) return
      const server = world.server()
      if (cancelled) {
        if (await cancel(server)) return
        continue
      }
      if (told.success && scenario.forget === 'stored') {
        await forget(server)
        await put(server)
        continue
      }
      if (told.success && scenario.remove === true) {
        if (await remove(server)) return
        const again = await put(server)
        if (typeof again === 'object' && again?.reference === null) return
        continue
      }
      const operation = await put(server)
      if (operation === null || typeof operation === 'number') {
        // A node that died keeps others away for the time of its lease.
        if (operation === null && scenario.impatient !== true) await world.pass(31_000)
        continue
      }
      let { offset } = operation
      while (offset < size && !over()) {
        if (scenario.cancelAfter !== undefined && ends().indexOf(offset) + 1 >= scenario.cancelAfter) break
        const next = await patch(server, offset)
        if (next === null && server.died.aborted && scenario.impatient !== true) await world.pass(31_000)
        if (next === null || next <= offset) break
        offset = next
        if (scenario.forget === 'half way') break
      }
      if (scenario.cancelAfter !== undefined && ends().indexOf(offset) + 1 >= scenario.cancelAfter) {
        cancelled = true
        if (await cancel(server)) return
        continue
      }
      if (scenario.forget === 'half way' && offset > 0 && offset < size) {
        await forget(world.server())
        await put(world.server())
        continue
      }
      if (offset < size) continue
      const digest =
        scenario.digest === 'pending' ? digestOf(content) : scenario.digest === 'pending-wrong' ? wrong : declared
      if (scenario.digest === 'pending-never') return
      const last = await put(world.server(), digest)
      if (told.success && scenario.remove !== true && scenario.forget === undefined) return
      if (last === 409) continue
    }
  }

  return { told, content, wrong, put, patch, cancel, remove, forget, upload }
}

function streamOf(chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[at++]
      if (chunk === undefined) controller.close()
      else controller.enqueue(chunk)
    },
  })
}
