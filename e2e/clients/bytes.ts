/**
 * The content of a swept file, which is the same in the page and in the harness. Within a megabyte no part of it
 * repeats. The function uses no library, so it runs in a browser as it runs in Node.
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
