/**
 * A function of a text that remembers its answers for at most `most` texts, and then starts with an empty memory. For
 * functions that cost more than a look-up in a map, such as a keyed hash, and are called for the same few owners.
 */
export function remembered<T>(answer: (text: string) => T, most = 1_000): (text: string) => T {
  const known = new Map<string, T>()
  return (text) => {
    const before = known.get(text)
    if (before !== undefined) return before
    const now = answer(text)
    if (known.size >= most) known.clear()
    known.set(text, now)
    return now
  }
}
