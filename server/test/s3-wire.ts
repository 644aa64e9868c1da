import { NodeHttpHandler } from '@smithy/node-http-handler'
import type { HttpHandlerOptions, HttpRequest, HttpResponse } from '@smithy/types'

type Send = () => Promise<{ response: HttpResponse }>
/** Decides about a call by its method and its object. `through` passes it on. */
export type Interfere = (call: string, through: Send, request: HttpRequest) => ReturnType<Send>

const callOf = ({ method, path, query }: HttpRequest): string => {
  const has = (name: string): boolean => query !== undefined && name in query
  const about = path.includes('/tails/') ? 'tail' : path.includes('/blobs/') ? 'blob' : 'other'
  if (has('partNumber')) return `UploadPart ${String(query?.['partNumber'])}`
  if (has('uploads')) return method === 'POST' ? 'Create' : 'ListMultiparts'
  if (has('uploadId')) return { POST: 'Complete', DELETE: 'Abort', GET: 'ListParts' }[method] ?? method
  if (has('list-type')) return 'List'
  return `${method} ${about}`
}

/** Disturbs calls between the client and the store. */
export class Wire {
  private readonly handler = new NodeHttpHandler({ httpAgent: { maxSockets: 256 } })
  readonly metadata = this.handler.metadata
  readonly calls: string[] = []
  interfere: Interfere = (_call, through) => through()
  async handle(request: HttpRequest, options?: HttpHandlerOptions): Promise<{ response: HttpResponse }> {
    const call = callOf(request)
    this.calls.push(call)
    return this.interfere(call, () => this.handler.handle(request as never, options), request)
  }
  updateHttpClientConfig(): void {}
  httpHandlerConfigs(): Record<string, never> {
    return {}
  }
  destroy(): void {
    this.handler.destroy()
  }
}

export const answer = (statusCode: number, code: string): { response: HttpResponse } => ({
  response: {
    statusCode,
    headers: { 'content-type': 'application/xml' },
    body: new TextEncoder().encode(`<?xml version="1.0"?><Error><Code>${code}</Code></Error>`),
  },
})
export const reset = (): never => {
  throw Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' })
}
