import type { ClientChange } from './mutate.js'

/** A mistake in the client that the client's sweep must find. */
export interface ClientMutation extends ClientChange {
  /** The scenarios in which the mistake matters, as a part of their names. */
  readonly only: string
  /** A kill that finds the mistake. Others may find it too, but a sweep of all kills takes long. */
  readonly at: RegExp
}

const REFERENCE =
  '{ operationId: live.id, size, type: "", digest: live.record().digest, digestSource: "client", storedAt: "", url: "", data: null }'

export const CLIENT_MUTATIONS: readonly ClientMutation[] = [
  {
    name: 'the record is written after the first request',
    edits: [
      { find: 'entry.live.amend((stored) => stored ?? record);', put: ';' },
      { find: 'await live.amend((stored) => stored);', put: ';' },
      {
        find: 'session.offsetKnown = true;',
        put: 'session.offsetKnown = true; (globalThis.unwritten ??= new Map()).set(live.id, live.record());',
      },
      {
        find: 'const next = change(stored ?? known);',
        put: 'const next = change(stored ?? known ?? globalThis.unwritten?.get(id));',
      },
    ],
    only: 'chunks',
    at: /^(before|after) PUT/,
  },
  {
    name: 'the last PATCH is taken for success',
    edits: [
      {
        find: 'outcome.offsetBytes === size ? { point: "received" }',
        put: `outcome.offsetBytes === size ? { point: "referenced", reference: ${REFERENCE} }`,
      },
    ],
    only: 'chunks',
    at: /^after told/,
  },
  {
    name: 'the record is removed before the application is told',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'await live.amend(() => void 0); telling.outcome(standing.point, upload);',
      },
    ],
    only: 'a small file',
    at: /^after commit put operations removed/,
  },
  {
    name: 'told is taken for acknowledged',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'telling.outcome(standing.point, upload); await live.amend(() => void 0);',
      },
    ],
    only: 'later visit',
    at: /^after commit (put|delete) operations/,
  },
  {
    name: 'an acknowledgement does not remove the record',
    edits: [
      {
        find: 'if (isSettled(live.record().standing)) await live.amend(() => void 0);',
        put: ';',
      },
    ],
    only: 'a small file',
    at: /^after acknowledged/,
  },
  {
    name: 'what is found in the journal continues under a new id',
    edits: [
      {
        find: 'drive(enter(record, null, true), signal)',
        put: 'drive(enter({ ...record, id: v7() }, null, true), signal)',
      },
      { find: 'await live.amend((stored) => stored);', put: 'await live.amend((stored) => stored ?? live.record());' },
    ],
    only: 'a small file',
    at: /^after commit put operations declared/,
  },
  {
    name: 'a cancellation is promised before the journal has it',
    edits: [{ find: 'cancel: () => live.amend(cancelled)', put: 'cancel: async () => void live.amend(cancelled)' }],
    only: 'cancelled',
    at: /^before put operations cancelled/,
  },
  {
    name: 'a cancelled record is removed without an answer of the server',
    edits: [
      {
        find: 'const answer = await ledger.cancel(live.id, signal);',
        put: 'return { withdrawn: true }; const answer = {};',
      },
    ],
    only: 'cancelled',
    at: /^after commit put operations cancelled/,
  },
  {
    name: 'a new pick is not proven',
    // Each check is removed: the one before bytes are sent, the one by the digest, and the one of what was accepted
    // before the digest was known.
    edits: [
      { find: 'if (seen.digest !== prefix.value.digest) return reject("source-changed");', put: ';' },
      { find: 'if (session.sourceDigest !== live.record().digest) return lose(step, "source-changed");', put: ';' },
      { find: 'if (seen.ok && seen.digest !== prefix.value.digest) return "source-changed";', put: ';' },
    ],
    only: 'picked again',
    at: /^after PATCH/,
  },
  {
    name: 'bytes are noted as accepted before they are sent',
    edits: [
      {
        find: 'return digestIsOwed(live) ? ask(step) : sendChunk(step, source, acceptedBytes, end);',
        put: 'if (digestIsOwed(live)) return ask(step); await live.amend((stored) => ({ ...stored, standing: { point: "declared", acceptedBytes: end } })); return sendChunk(step, source, acceptedBytes, end);',
      },
    ],
    only: 'chunks',
    at: /^before PATCH/,
  },
  {
    name: 'a stored copy is not used',
    edits: [{ find: 'if (copy === "none") return null;', put: 'return null;' }],
    only: 'chunks',
    at: /^after commit put operations declared, copy verified/,
  },
  {
    name: 'an outcome from the journal is not told',
    edits: [
      {
        find: 'telling.outcome(standing.point, upload);',
        put: 'if (!live.snapshot().recovered) telling.outcome(standing.point, upload);',
      },
    ],
    only: 'a small file',
    at: /^after commit put operations referenced/,
  },
]
