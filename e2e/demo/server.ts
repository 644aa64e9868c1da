import { fileURLToPath } from 'node:url'
import { serveUploads } from '@landfall/server'
import { createDemo } from './demo.js'

// `npm start`: the demo on PORT, with its data in DATA_DIR. It lets anybody sign in as anybody: only this machine reaches
// it, unless DEMO_HOST says otherwise.
const hostname = process.env['DEMO_HOST'] ?? '127.0.0.1'
const port = Number(process.env['PORT'] ?? 3000)
const directory = process.env['DATA_DIR'] ?? './data'
const page = fileURLToPath(new URL('../../build/page', import.meta.url))

const demo = await createDemo({ directory, page })
const server = await serveUploads({ fetch: demo.fetch, port, hostname })

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    // The last answers go out with the connections' end.
    server.close(() => process.exit(0))
    void demo.close().finally(() => {
      server.closeIdleConnections()
      setTimeout(() => process.exit(0), 1_000).unref()
    })
  })
