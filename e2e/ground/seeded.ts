/** Random numbers that are the same for the same seed (mulberry32). */
export interface Seeded {
  /** A number from 0 up to but not including 1. */
  next(): number
  /** A whole number below `limit`. */
  below(limit: number): number
  pick<T>(items: readonly T[]): T
  shuffled<T>(items: readonly T[]): T[]
}

export function seeded(seed: number): Seeded {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return {
    next,
    below,
    pick(items) {
      const picked = items[below(items.length)]
      if (picked === undefined) throw new Error('there is nothing to pick from')
      return picked
    },
    shuffled(items) {
      const rest = [...items]
      for (let at = rest.length - 1; at > 0; at -= 1) {
        const other = below(at + 1)
        const [a, b] = [rest[at], rest[other]]
        if (a === undefined || b === undefined) continue
        rest[at] = b
        rest[other] = a
      }
      return rest
    },
  }
}
