import { SHA256 } from '@stablelib/sha256'
import type { DigestOutcome, DigestState } from './ports.js'

/**
 * SHA-256 of a blob, slice by slice, so that its size does not matter and other tasks run between slices.
 * (`crypto.subtle` needs all bytes at once and a secure context. WebAssembly is not allowed under `script-src 'self'`.)
 */
export async function hashBlob(
  blob: Blob,
  from: DigestState | null,
  sliceBytes: number,
  read: (slice: Blob, signal: AbortSignal) => Promise<Uint8Array | null>,
  signal: AbortSignal,
): Promise<DigestOutcome> {
  const hash = new SHA256()
  if (from !== null) hash.restoreState(from)
  for (let at = from?.bytesHashed ?? 0; at < blob.size; at += sliceBytes) {
    const bytes = await read(blob.slice(at, at + sliceBytes), signal)
    if (signal.aborted) return { ok: false, why: 'stopped' }
    if (bytes === null) return { ok: false, why: 'unreadable' }
    hash.update(bytes)
  }
  if (signal.aborted) return { ok: false, why: 'stopped' }
  const state = hash.saveState()
  return { ok: true, digest: `sha-256=:${btoa(String.fromCharCode(...hash.digest()))}:`, state }
}
