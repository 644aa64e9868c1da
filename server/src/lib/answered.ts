/** The application has answered the request itself with a response that its hook threw. */
export class AnsweredError extends Error {
  override readonly name = 'AnsweredError'
  readonly response: Response
  constructor(response: Response) {
    super(`the application answered ${response.status}`)
    this.response = response
  }
}

/**
 * Calls a hook of the application that may throw an answer: a `Response`, or Hono's `HTTPException`.
 *
 * @throws AnsweredError with that answer.
 */
export async function unlessAnswered<T>(hook: () => T | Promise<T>): Promise<T> {
  try {
    return await hook()
  } catch (error) {
    const response = responseIn(error)
    // Hono renders only instances of Error.
    if (response === null)
      throw error instanceof Error ? error : new Error('something other than an Error was thrown', { cause: error })
    // A copy, because the application may throw the same object for each request.
    const copy = response.clone()
    throw new AnsweredError(new Response(copy.body, copy))
  }
}

/**
 * `HTTPException` is recognised by its method, because an application can use another copy of Hono than this package.
 */
function responseIn(error: unknown): Response | null {
  if (error instanceof Response) return error
  if (!(error instanceof Error) || !('getResponse' in error) || typeof error.getResponse !== 'function') return null
  const response: unknown = error.getResponse()
  return response instanceof Response ? response : null
}
