import { problem, TUS_RESUMABLE } from '@landfall/shared'
import type { MiddlewareHandler } from 'hono'
import type { Env } from '../context.js'
import { renderRefusal } from '../errors.js'
import { ProblemError } from '../../lib/problem-error.js'

/** The refusal names the versions that the server supports. */
export const versionRefused = (): ProblemError =>
  new ProblemError(
    { ...problem('invalid-request', { detail: `Tus-Resumable: ${TUS_RESUMABLE} is required` }), status: 412 },
    { 'Tus-Version': TUS_RESUMABLE },
  )

/**
 * tus 1.0.0, "Tus-Resumable": the header is in every request and in every answer, whatever the outcome. Another version
 * is answered with 412 and is not processed. GET, and HEAD without the header, ask for the stored file and not for the
 * protocol.
 *
 * @see https://tus.io/protocols/resumable-upload#tus-resumable
 */
export const tusVersion: MiddlewareHandler<Env> = async (c, next) => {
  const { method } = c.req
  const version = c.req.header('Tus-Resumable')
  const isForFile = method === 'GET' || (method === 'HEAD' && version === undefined)
  if (method === 'OPTIONS' || isForFile || version === TUS_RESUMABLE) await next()
  else c.res = renderRefusal(versionRefused())
  if (!isForFile || c.res.headers.has('Tus-Version')) c.res.headers.set('Tus-Resumable', TUS_RESUMABLE)
}
