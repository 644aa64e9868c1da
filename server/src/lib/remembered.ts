/**
 * A function of a text that answers from memory what it was asked before, for at most so many texts: then it begins
 * again. For what costs more than a look into a map, such as a keyed hash, and is asked for by the same few owners.
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
