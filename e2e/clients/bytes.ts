/**
 * The content of a swept file, the same in the page and in the harness: bytes that repeat nowhere within a megabyte.
 * No library: it runs in a browser as it runs here.
 */
export function sweptBytes(sizeBytes: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(sizeBytes)
  let state = Math.imul(seed + 1, 2_654_435_761) | 1
  for (let at = 0; at < sizeBytes; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
    bytes[at] = state >>> 24
  }
  return bytes
}
