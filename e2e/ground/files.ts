import { createCipheriv, createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const BLOCK_BYTES = 1_048_576

/** Bytes that look random and are the same for the same seed on every machine (a key stream of AES-128-CTR). */
export function* pseudoRandom(bytes: number, seed: string): Generator<Buffer> {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  const zeros = Buffer.alloc(Math.min(BLOCK_BYTES, bytes))
  for (let left = bytes; left > 0; left -= zeros.length) yield cipher.update(zeros.subarray(0, left))
}

export const pseudoRandomBytes = (bytes: number, seed: string): Buffer => Buffer.concat([...pseudoRandom(bytes, seed)])

export interface MadeFile {
  readonly path: string
  readonly sizeBytes: number
  /** In lower-case hexadecimal. */
  readonly sha256: string
}

/** Writes such bytes to a file, at some 500 MB a second, and returns their digest. */
export async function makeFile(path: string, sizeBytes: number, seed = path): Promise<MadeFile> {
  const hash = createHash('sha256')
  const file = await open(path, 'w')
  try {
    for (const block of pseudoRandom(sizeBytes, seed)) {
      hash.update(block)
      await file.write(block)
    }
  } finally {
    await file.close()
  }
  return { path, sizeBytes, sha256: hash.digest('hex') }
}

/** The SHA-256 of a stored file, in lower-case hexadecimal. */
export async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: BLOCK_BYTES }), hash)
  return hash.digest('hex')
}

/** The same digest in the form that the wire uses (RFC 9530). */
export const wireDigest = (sha256Hex: string): string => `sha-256=:${Buffer.from(sha256Hex, 'hex').toString('base64')}:`

/** Makes an empty temporary directory. `remove` deletes it with everything in it. */
export async function temporaryDirectory(prefix = 'landfall-', parent = tmpdir()) {
  const path = await mkdtemp(join(parent, prefix))
  const remove = (): Promise<void> => rm(path, { recursive: true, force: true, maxRetries: 5 })
  return { path, remove }
}
