/**
 * A receiver of webhooks that is a process of its own, to be killed, stopped and slow: `node webhook-receiver.js PORT
 * FILE SLOW_MS`. Writes a line for each delivery that it took, `webhook-id operation-id`, and answers up to SLOW_MS later.
 */
import { appendFileSync } from 'node:fs'
import { createServer } from 'node:http'
import * as v from 'valibot'

const [port = '', file = '', slowMs = ''] = process.argv.slice(2)
const body = v.object({ data: v.object({ operation: v.object({ id: v.string() }) }) })

const server = createServer((request, response) => {
  let text = ''
  request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  request.on('end', () => {
    const { data } = v.parse(body, JSON.parse(text))
    appendFileSync(file, `${String(request.headers['webhook-id'])} ${data.operation.id}\n`)
    setTimeout(() => response.writeHead(204).end(), Math.random() * Number(slowMs))
  })
})
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'))
