import type { Client } from './client.js'
import { digestOf } from './memory-blobs.js'
import { type Crossing, EXPIRES_AFTER_MS, LEASE_MS, type Server, type Strike, type World } from './world.js'

/** What can happen at a boundary. */
export const HOWS = [
  'crash before',
  'crash after',
  'crash in the middle',
  'power loss',
  'fails',
  'answer lost',
  'the same PUT',
  'the same bytes',
  'second driver',
  'lease lost',
  'lease lost, answer late',
  'lease lost to a receiver',
  'slow',
  'cancel',
  'cancel, answer late',
  'expiry',
  'removal',
  'owner forgotten',
  'owner forgotten, answer late',
  'digest arrives',
  'another digest arrives',
  'bytes vanish',
  'the last byte vanishes',
] as const
export type How = (typeof HOWS)[number]

export interface Fault {
  /** Which boundary, counted from 0 in the order in which they are crossed. */
  readonly at: number
  readonly how: How
}

/** After one of these an upload need not arrive, although its client returns. */
export const ENDING: ReadonlySet<How> = new Set<How>([
  'cancel',
  'cancel, answer late',
  'expiry',
  'removal',
  'owner forgotten',
  'owner forgotten, answer late',
  'another digest arrives',
  'bytes vanish',
  'the last byte vanishes',
])

export interface Stage {
  readonly world: World
  readonly client: Client
  /** The disk loses acknowledged bytes that are not sealed. */
  readonly damage: (how: 'gone' | 'cut') => void
  /** Requests that still run. The end of the history waits for them. */
  readonly pending: Set<Promise<unknown>>
}

/** Made in every pass. A fault at one of these has the same effect as one before the next call. */
const POLLS = new Set(['ledger.takeEffects', 'ledger.complete', 'ledger.retire', 'ledger.forgetOtherHolders'])
const AT_POLLS = new Set<How>(['crash after', 'fails', 'answer lost', 'removal', 'cancel'])

/** Whether the fault makes a difference at such a call. */
export function applies(how: How, call: string): boolean {
  if (POLLS.has(call) && !AT_POLLS.has(how)) return false
  switch (how) {
    case 'crash in the middle':
      return call === 'blobs.append'
    case 'slow':
      return call === 'hook' || call === 'prepare'
    case 'lease lost, answer late':
    case 'cancel, answer late':
    case 'owner forgotten, answer late':
      return call.startsWith('blobs.') || call === 'hook' || call === 'prepare' || call === 'ledger.refer'
    default:
      return true
  }
}

export function strikeOf(how: How, stage: Stage): Strike {
  const { world, client } = stage
  /** Runs the work as far as it gets without time passing. The rest of it runs concurrently. */
  const meanwhile = async (work: Promise<unknown>): Promise<void> => {
    let done = false
    const settled = work.catch(() => {}).finally(() => (done = true))
    stage.pending.add(settled)
    void settled.finally(() => stage.pending.delete(settled))
    await world.quiet(() => done)
  }
  const takeOver = async ({ server }: Crossing): Promise<void> => {
    world.jump(LEASE_MS + 1)
    await meanwhile((world.other(server) ?? server).runOnce())
  }
  const cancel = ({ server }: Crossing): Promise<void> => meanwhile(client.cancel(server))

  switch (how) {
    case 'crash before':
      return { before: ({ server }) => server.kill() }
    case 'crash after':
      return { after: ({ server }) => server.kill() }
    case 'crash in the middle':
      return {
        before({ server, append }) {
          server.kill()
          if (append !== null) {
            const half = append.chunk.slice(0, Math.ceil(append.chunk.length / 2))
            world.disk.leave(append.blob.key, append.offset, half)
          }
        },
      }
    case 'power loss':
      return {
        before({ append }) {
          if (append !== null) world.disk.leave(append.blob.key, append.offset, append.chunk)
          world.losePower()
        },
      }
    case 'fails':
      return { fails: 'undone' }
    case 'answer lost':
      return { fails: 'done' }
    case 'the same PUT':
      return { before: ({ server }) => meanwhile(client.put(server)) }
    case 'the same bytes':
      return { before: ({ server }) => meanwhile(client.patch(server, client.told.acknowledged)) }
    case 'second driver':
      return { before: ({ server }) => meanwhile(server.runOnce()) }
    case 'lease lost':
      return { before: takeOver }
    case 'lease lost, answer late':
      return { after: takeOver }
    case 'lease lost to a receiver':
      return {
        async before({ server }) {
          world.jump(LEASE_MS + 1)
          const other: Server = world.other(server) ?? server
          await meanwhile(client.put(other))
          await meanwhile(client.patch(other, client.told.acknowledged))
        },
      }
    case 'slow':
      return { before: () => world.pass(150) }
    case 'cancel':
      return { before: cancel }
    case 'cancel, answer late':
      return { after: cancel }
    case 'expiry':
      return {
        async before({ server }) {
          world.jump(EXPIRES_AFTER_MS + 1)
          await meanwhile((world.other(server) ?? server).runOnce())
        },
      }
    case 'removal':
      return { before: ({ server }) => meanwhile(client.remove(server)) }
    case 'owner forgotten':
      return { before: ({ server }) => meanwhile(client.forget(server)) }
    case 'owner forgotten, answer late':
      return { after: ({ server }) => meanwhile(client.forget(server)) }
    case 'digest arrives':
      return { before: ({ server }) => meanwhile(client.put(server, digestOf(client.content))) }
    case 'another digest arrives':
      return { before: ({ server }) => meanwhile(client.put(server, client.wrong)) }
    case 'bytes vanish':
      return { before: () => stage.damage('gone') }
    case 'the last byte vanishes':
      return { before: () => stage.damage('cut') }
    default:
      return how satisfies never
  }
}
