import { refuse } from '../../lib/problem-error.js'

/** By key. A key without a value has null. It has no prototype, so `constructor` and `__proto__` are ordinary keys. */
export type UploadMetadata = Readonly<Record<string, string | null>>

// Padding may be missing. Text that is not base64 is refused, because some of its bytes would be lost without a sign.
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/

/**
 * Parses the header `Upload-Metadata`. It accepts what tusd, the reference server, accepts: blanks around pairs, empty
 * pairs, an empty header, and any text without a blank or a comma as a key.
 *
 * @throws ProblemError `invalid-request` for a pair whose value is not base64, and for a key with two values.
 * @see https://tus.io/protocols/resumable-upload#upload-metadata
 */
export function parseUploadMetadata(header: string | undefined): UploadMetadata {
  const metadata = Object.create(null) as Record<string, string | null>
  for (const pair of (header ?? '').split(',').map((text) => text.trim())) {
    if (pair === '') continue
    const [key = '', encoded, ...more] = pair.split(/[ \t]+/)
    if (more.length > 0) throw malformed(key, 'a key and one value')
    if (encoded !== undefined && !BASE64.test(encoded)) throw malformed(key, 'a value in base64')
    const value = encoded === undefined ? null : Buffer.from(encoded, 'base64').toString()
    if (key in metadata && metadata[key] !== value) throw malformed(key, 'each key once')
    metadata[key] = value
  }
  return metadata
}

const malformed = (key: string, wanted: string): Error =>
  refuse('invalid-request', { detail: `Upload-Metadata: ${key.slice(0, 64)}: ${wanted}` })
