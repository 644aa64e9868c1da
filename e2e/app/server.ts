import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { getRequestListener } from '@hono/node-server'
import { createDemo } from './demo.js'

// `npm start`: the demo on PORT, with its data in DATA_DIR.
const port = Number(process.env['PORT'] ?? 3000)
const directory = process.env['DATA_DIR'] ?? './data'
const page = fileURLToPath(new URL('../../build/page', import.meta.url))

const demo = await createDemo({ directory, page })
const listener = getRequestListener(demo.fetch)
// No limit for a whole request: an upload over a slow line takes longer than Node's five minutes.
const server = createServer(
  { requestTimeout: 0, keepAliveTimeout: 75_000, keepAlive: true },
  (request, response) => void listener(request, response),
)
server.listen(port)

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    // The last answers go out with the connections' end.
    server.close(() => process.exit(0))
    void demo.close().finally(() => {
      server.closeIdleConnections()
      setTimeout(() => process.exit(0), 1_000).unref()
    })
  })
