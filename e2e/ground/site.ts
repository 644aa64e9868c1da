import { createReadStream, statSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { listen } from './ports.js'

export interface Site {
  /** `http://127.0.0.1:<port>` */
  readonly origin: string
  close(): Promise<void>
}

export interface SiteOptions {
  /** The folder that is served at `/`. */
  readonly directory: string
  /** Headers that are sent with every file. */
  readonly headers?: Readonly<Record<string, string>>
  /** Requests below this path go to another server, with these headers added, as behind a reverse proxy. */
  readonly forward?: {
    readonly path: string
    readonly port: number
    readonly headers: Readonly<Record<string, string>>
  }
  /** Requests below this path are answered by a function of the caller. */
  readonly own?: {
    readonly path: string
    readonly answer: (req: IncomingMessage, res: ServerResponse) => void
  }
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
}

/** A web server for a built page, in front of a server that handles the uploads. */
export async function startSite({ directory, headers = {}, forward, own }: SiteOptions): Promise<Site> {
  const server = createServer((req, res) => {
    const path = new URL(req.url ?? '/', 'http://site').pathname
    if (own !== undefined && path.startsWith(own.path)) own.answer(req, res)
    else if (forward !== undefined && path.startsWith(forward.path)) pass(req, res, forward.port, forward.headers)
    else sendFile(join(directory, normalize(path === '/' ? '/index.html' : path)), headers, res)
  })
  const port = await listen(server)
  return {
    origin: `http://127.0.0.1:${port}`,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function sendFile(path: string, headers: Readonly<Record<string, string>>, res: ServerResponse): void {
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    res.writeHead(404).end()
    return
  }
  res.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream', ...headers })
  createReadStream(path).pipe(res)
}

function pass(req: IncomingMessage, res: ServerResponse, port: number, added: Readonly<Record<string, string>>): void {
  const { url: path, method, headers } = req
  const forwarded = request({ port, host: '127.0.0.1', path, method, headers: { ...headers, ...added } }, (answer) => {
    res.writeHead(answer.statusCode ?? 502, answer.headers)
    answer.pipe(res)
  })
  forwarded.on('error', () => res.destroy())
  res.on('close', () => forwarded.destroy())
  req.pipe(forwarded)
}
