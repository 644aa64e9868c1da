import { createServer, type Server } from 'node:net'

/** Whether a server could listen on this port of this address now. */
export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}

/** Listens on loopback, on any free port unless one is given, and resolves with the port. */
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
 * A port that was free a moment ago. Another program may take it in the next moment, so a program that can listen on
 * port 0 and print its port should do so. This function is for servers that must come back on the same port.
 */
export async function freePort(): Promise<number> {
  const server = createServer()
  const port = await listen(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}
