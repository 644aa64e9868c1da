/**
 * A stream that opens its source with the first read, so that an answer which nobody reads holds nothing open. What the
 * source fails with comes from the stream, as `faultOf` makes it.
 */
export function whenPulled(
  open: () => ReadableStream<Uint8Array>,
  faultOf: (error: unknown) => Error,
): ReadableStream<Uint8Array> {
  let reader: ReadableStreamDefaultReader<Uint8Array> | null = null
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        reader ??= open().getReader()
        const chunk = await reader.read().catch((error: unknown) => {
          throw faultOf(error)
        })
        if (chunk.done) controller.close()
        else controller.enqueue(chunk.value)
      },
      async cancel(reason) {
        await reader?.cancel(reason)
      },
    },
    // Nothing is read ahead of its reader.
    { highWaterMark: 0 },
  )
}
