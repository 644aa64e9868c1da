import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export interface RawAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The head of a request, as it is sent. */
export const head = (method: string, target: string, headers: Readonly<Record<string, string>> = {}): string =>
  `${method} ${target} HTTP/1.1\r\n${Object.entries({ Host: 'host.test', ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`

/** One raw connection, for bytes that `fetch` would not send or show. `through` is a connection that is already open. */
export async function openLine(port: number, through?: Socket) {
  const socket: Socket = through ?? connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  if (through === undefined) await once(socket, 'connect')
  let received: Buffer = Buffer.alloc(0)
  let more: Buffer[] = []
  const line = { end: 'open' }
  let wake = (): void => {}
  socket.on('data', (chunk: Buffer) => {
    more.push(chunk)
    wake()
  })
  socket.on('end', () => {
    line.end = 'ended'
    wake()
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    line.end = error.code ?? error.message
    wake()
  })
  socket.on('close', () => wake())
  const changed = (): Promise<void> => new Promise((resolve) => (wake = resolve))
  const gather = (): Buffer => {
    received = Buffer.concat([received, ...more])
    more = []
    return received
  }

  return {
    socket,
    send: (data: string | Uint8Array) => void socket.write(data),
    received: () => gather().toString('latin1'),
    /** `ended` after an orderly end, or the code of the error that closed it. */
    end: () => line.end,
    async ended(): Promise<string> {
      while (line.end === 'open' && !socket.destroyed) await changed()
      return line.end
    },
    /** The next answer. It must have a Content-Length or no body. */
    async answer(method = 'GET'): Promise<RawAnswer> {
      for (;;) {
        gather()
        const at = received.indexOf('\r\n\r\n')
        if (at >= 0) {
          const [status = '', ...fields] = received.subarray(0, at).toString('latin1').split('\r\n')
          const headers = Object.fromEntries(
            fields.map((field) => [
              field.slice(0, field.indexOf(':')).toLowerCase(),
              field.slice(field.indexOf(':') + 1).trim(),
            ]),
          )
          const length = method === 'HEAD' ? 0 : Number(headers['content-length'] ?? 0)
          for (let there = received.length; there < at + 4 + length && line.end === 'open';) {
            const before = more.length
            await changed()
            there += more.slice(before).reduce((sum, chunk) => sum + chunk.length, 0)
          }
          if (gather().length >= at + 4 + length) {
            const body = received.subarray(at + 4, at + 4 + length).toString()
            received = received.subarray(at + 4 + length)
            return { status: Number(status.split(' ')[1]), headers, body }
          }
        }
        if (line.end !== 'open' || socket.destroyed)
          throw new Error(`no whole answer: ${line.end}, ${received.length} bytes`)
        await changed()
      }
    },
    destroy: () => socket.destroy(),
    reset: () => socket.resetAndDestroy(),
  }
}
