import type { LifecycleRule } from '@aws-sdk/client-s3'
import { v4 as uuidv4 } from 'uuid'
import { faultMessage } from '../../lib/errors.js'
import type { CheckResult, StoreCheck } from '../../ports/blob-store.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'

const DAY_MS = 24 * 60 * 60_000
/** How many days a rule should leave after an upload that is not resumed has expired. */
const NET_DAYS = 7
const never = new AbortController().signal

const ok = (found: string): CheckResult => ({ state: 'ok', found, advice: null })
const warning = (found: string, advice: string): CheckResult => ({ state: 'warning', found, advice })
const failed = (found: string, advice: string): CheckResult => ({ state: 'failed', found, advice })

/**
 * Examines the service behind the bucket for `doctor`. It tries each ability under names of its own and removes them
 * again.
 */
export function createExamine({ calls, names }: { calls: S3Calls; names: Names }) {
  const text = payloadOf([Buffer.from('may be removed')])

  /** What the service cannot do, in words. */
  async function lacks(): Promise<string[]> {
    const lacking: string[] = []
    const name = names.probes + uuidv4()
    const uploads: string[] = []
    const begin = async (): Promise<string> => {
      const uploadId = await calls.createMultipart(name, 'a-token', never)
      uploads.push(uploadId)
      return uploadId
    }
    try {
      await calls.put(name, text, { once: true })
      if ((await calls.put(name, text, { once: true })).outcome === 'put')
        lacking.push('does not refuse to overwrite an object (If-None-Match)')
      const range = await calls.get(name, 'bytes=4-5')
      if ((await range?.Body?.transformToString()) !== 'be') lacking.push('does not read ranges')

      const ended = await begin()
      await calls.uploadPart({ name, uploadId: ended, number: 1, payload: text }, never)
      await calls.abort(name, ended)

      const kept = await begin()
      const wrong = { ...text, sha256: payloadOf([]).sha256 }
      const isRefused = await calls
        .uploadPart({ name, uploadId: kept, number: 1, payload: wrong }, never)
        .then(() => false)
        .catch(() => true)
      if (!isRefused) lacking.push('accepts bytes that do not match the signature (they are found when read back)')
      const part = await calls.uploadPart({ name, uploadId: kept, number: 1, payload: text }, never)
      const parts = (await calls.listParts(name, kept)) ?? []
      if (part === 'gone' || parts.length !== 1) lacking.push('does not list the parts of an upload')
      else {
        await calls.complete(name, kept, [{ PartNumber: 1, ETag: part.etag }])
        const found = await calls.head(name)
        if (found?.token !== 'a-token') lacking.push('does not keep the metadata of an upload')
      }
      return lacking
    } finally {
      await Promise.allSettled(uploads.map((uploadId) => calls.abort(name, uploadId)))
      await calls.delete(name).catch(() => {})
    }
  }

  async function abilities(): Promise<CheckResult> {
    const lacking = await lacks()
    return lacking.length === 0
      ? ok('conditional writes, ranges, multipart uploads with metadata, aborts of uploads, digests of sent bytes')
      : failed(`the object store ${lacking.join('; it ')}`, 'Use a service, or a version of it, that does.')
  }

  async function lifecycle(expiresAfterMs: number): Promise<CheckResult> {
    const rules = (await calls.lifecycle()).filter((rule) => rule.Status === 'Enabled' && concerns(rule, names.prefix))
    const expiryDays = Math.ceil(expiresAfterMs / DAY_MS)
    const removing = rules.find(({ Expiration: of }) => of?.Days !== undefined || of?.Date !== undefined)
    if (removing !== undefined)
      return failed(
        `the rule ${removing.ID ?? ''} of the bucket removes objects by their age, so that references lose their bytes`,
        'Remove this rule, or limit it to another prefix.',
      )
    const nets = rules.flatMap((rule) => rule.AbortIncompleteMultipartUpload?.DaysAfterInitiation ?? [])
    if (nets.some((days) => days <= expiryDays))
      return warning(
        `a rule of the bucket ends uploads ${Math.min(...nets)} days after their start, even active ones`,
        `Give it at least ${expiryDays + NET_DAYS} days, because an upload may resume until then.`,
      )
    if (nets.length > 0)
      return ok(`incomplete uploads are removed after ${Math.min(...nets)} days, and no rule removes anything else`)
    const rule: LifecycleRule = {
      ID: 'landfall-incomplete-uploads',
      Status: 'Enabled',
      Filter: { Prefix: names.blobs },
      AbortIncompleteMultipartUpload: { DaysAfterInitiation: expiryDays + NET_DAYS },
    }
    return warning(
      'no rule of the bucket removes anything',
      `In addition to \`landfall reconcile\`, a rule may remove incomplete uploads: ${JSON.stringify({ Rules: [rule] })}.`,
    )
  }

  const checked = async (name: StoreCheck['name'], look: () => Promise<CheckResult>, advice: string) => ({
    name,
    ...(await look().catch((error: unknown) => failed(faultMessage(error), advice))),
  })
  return async ({ expiresAfterMs }: { expiresAfterMs: number }): Promise<StoreCheck[]> => [
    await checked('abilities', abilities, 'Check that the bucket can be reached, and what these credentials may do.'),
    await checked(
      'lifecycle',
      () => lifecycle(expiresAfterMs),
      'Allow s3:GetLifecycleConfiguration, or check yourself that no rule removes objects under the prefix.',
    ),
  ]
}

function concerns(rule: LifecycleRule, prefix: string): boolean {
  const of = rule.Filter?.Prefix ?? rule.Filter?.And?.Prefix ?? rule.Prefix ?? ''
  return of.startsWith(prefix) || prefix.startsWith(of)
}
