/** Passes on chunks until the source ends or breaks, a chunk is refused, or `stop` is asked. */
export async function readChunks(
  source: AsyncIterable<Uint8Array>,
  stop: Stop,
  take: (chunk: Uint8Array) => Promise<boolean>,
): Promise<'whole' | 'broken' | 'excess' | 'stopped'> {
  const iterator = source[Symbol.asyncIterator]()
  for (;;) {
    const chunk = await nextChunk(iterator, stop)
    if (chunk === 'stopped' || chunk === 'broken') return chunk
    if (chunk.done === true) return 'whole'
    if (!(await take(chunk.value))) return 'excess'
  }
}

/** Waits for a chunk, but no longer than until `stop` is asked, because a silent client sends no further chunk. */
function nextChunk(
  iterator: AsyncIterator<Uint8Array>,
  stop: Stop,
): Promise<IteratorResult<Uint8Array> | 'stopped' | 'broken'> {
  return new Promise((resolve) => {
    stop.whenAsked(() => resolve('stopped'))
    if (!stop.asked()) iterator.next().then(resolve, () => resolve('broken'))
  })
}

/**
 * A request to end the reading; any part of the code may make it. It is lighter than an AbortSignal, of which every
 * upload would need four.
 */
export interface Stop {
  ask(): void
  asked(): boolean
  /**
   * Sets the listener. There is only one, the last one that was set. It is called at once if `ask` was called before.
   */
  whenAsked(listener: () => void): void
}

export function createStop(): Stop {
  let asked = false
  let listener = (): void => {}
  return {
    ask() {
      asked = true
      listener()
    },
    asked: () => asked,
    whenAsked(next) {
      listener = next
      if (asked) next()
    },
  }
}
