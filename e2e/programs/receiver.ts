import { createServer } from 'node:http'
import * as v from 'valibot'
import { listen } from '../ground/ports.js'

const bodySchema = v.object({ data: v.object({ operation: v.object({ id: v.string() }) }) })

export interface ReceiverOptions {
  /** Default 0, which is any free port. */
  readonly port?: number
  /** Default true. With false it reads requests and never answers. */
  readonly answers?: boolean
  /** How many milliseconds an answer takes. Default: it answers at once. */
  readonly answersAfterMs?: () => number
  /** Default true. With false the bodies are not parsed, and the ids of operations are empty. */
  readonly parses?: boolean
  /** Called for each delivery, before it is answered. */
  readonly onDelivery?: (effectId: string, operationId: string) => void
}

/** A receiver of webhooks on loopback. */
export interface Receiver {
  readonly url: string
  /** The ids of the effects that it has received, by operation. */
  readonly received: ReadonlyMap<string, ReadonlySet<string>>
  /** The settings that make `landfall serve` send webhooks to it. */
  readonly settings: Readonly<Record<string, string>>
  close(): Promise<void>
}

export async function startReceiver(options: ReceiverOptions = {}): Promise<Receiver> {
  const { port = 0, answers = true, answersAfterMs = () => 0, parses = true, onDelivery } = options
  const received = new Map<string, Set<string>>()
  const server = createServer((request, response) => {
    const effectId = String(request.headers['webhook-id'])
    if (!parses) onDelivery?.(effectId, '')
    let text = ''
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    request.on('end', () => {
      if (parses) {
        const { id } = v.parse(bodySchema, JSON.parse(text)).data.operation
        received.set(id, (received.get(id) ?? new Set()).add(effectId))
        onDelivery?.(effectId, id)
      }
      const answer = (): void => void response.writeHead(204).end()
      const afterMs = answersAfterMs()
      if (answers && afterMs === 0) answer()
      else if (answers) setTimeout(answer, afterMs)
    })
  })
  const url = `http://127.0.0.1:${await listen(server, port)}/`
  return {
    url,
    received,
    settings: {
      LANDFALL_WEBHOOK_URL: url,
      LANDFALL_WEBHOOK_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
      LANDFALL_WEBHOOK_ALLOW_PRIVATE: 'true',
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
