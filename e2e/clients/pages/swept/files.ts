import { sweptBytes } from '../../bytes.js'

const TYPE = { type: 'application/octet-stream' }

export const fileOf = (sizeBytes: number, seed: number): File =>
  new File([sweptBytes(sizeBytes, seed)], `${seed}.bin`, TYPE)

/** A file with the same size and name, in which one byte is changed. */
export function otherFile(sizeBytes: number, seed: number): File {
  const bytes = sweptBytes(sizeBytes, seed)
  bytes[0] = (bytes[0] ?? 0) ^ 1
  return new File([bytes], `${seed}.bin`, TYPE)
}
