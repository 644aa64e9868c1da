/**
 * Makes a stream that opens its source at the first read, so that a response that is never read keeps nothing open. If
 * the source fails, the stream fails with the error that `faultOf` makes of it.
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
    // Nothing is read before the reader asks for it.
    { highWaterMark: 0 },
  )
}
