import * as v from 'valibot'
import { faultMessage } from './errors.js'
import type { Logger } from './log.js'
import type { BlobStore, EffectRecord, Ledger } from './ports.js'

/** Delivers what is owed after a commit, at least once under a stable id. */
export interface Effects {
  /** Takes what is due and delivers it; answers how many were taken. */
  deliverDue(): Promise<number>
}

const BATCH = 50
/** Longer than a removal takes; a delivery that dies is tried again after it. */
const LEASE_MS = 60_000
const BACKOFF = { firstMs: 1_000, mostMs: 60 * 60_000 }

const removalSchema = v.object({ blobKey: v.string() })

export function createEffects({
  ledger,
  blobs,
  log,
}: {
  ledger: Ledger<unknown>
  blobs: BlobStore
  log: Logger
}): Effects {
  const deliver = async (effect: EffectRecord): Promise<void> => {
    switch (effect.type) {
      case 'remove-bytes': // repeatable: absent is fine
        await blobs.remove(v.parse(removalSchema, effect.payload).blobKey)
        return
      default:
        return effect.type satisfies never
    }
  }

  const settle = async (effect: EffectRecord): Promise<void> => {
    try {
      await deliver(effect)
      await ledger.settleEffect(effect.effectId, { delivered: true })
    } catch (error) {
      const retryInMs = Math.random() * Math.min(BACKOFF.mostMs, BACKOFF.firstMs * 2 ** Math.min(30, effect.attempts))
      log.warn(
        { operationId: effect.id, effectId: effect.effectId, attempts: effect.attempts, retryInMs, err: error },
        'an effect was not delivered',
      )
      await ledger
        .settleEffect(effect.effectId, { delivered: false, error: faultMessage(error), retryInMs })
        .catch((unrecorded: unknown) => {
          log.error(
            { operationId: effect.id, effectId: effect.effectId, err: unrecorded },
            'how a delivery failed could not be recorded',
          )
        })
    }
  }

  return {
    async deliverDue() {
      const due = await ledger.takeEffects({ leaseMs: LEASE_MS, limit: BATCH })
      await Promise.all(due.map(settle))
      return due.length
    },
  }
}
