import { createServer, type Server } from 'node:net'

/** Whether a port can be listened on at this address now. */
export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}

/** Listens on loopback, on any free port unless one is given, and answers which. */
export function listen(server: Server, port = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      if (address === null || typeof address === 'string') reject(new Error('a TCP server has an address'))
      else resolve(address.port)
    })
  })
}

/**
 * A port that was free a moment ago. Somebody else may take it: where a program can listen on 0 and say where, that is
 * better. For a server that has to come back on the same port.
 */
export async function freePort(): Promise<number> {
  const server = createServer()
  const port = await listen(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}
