/**
 * The highest possible rate of deliveries, as a separate process: `node post-bodies.js <url> <count> <parallel>`. It
 * POSTs `count` bodies of a webhook's size to the receiver, `parallel` at a time, over connections that are kept open.
 * It records nothing.
 */
import { Agent, request } from 'node:http'

const [url = '', count = '0', parallel = '1'] = process.argv.slice(2)
const agent = new Agent({ keepAlive: true, maxSockets: Number(parallel) })
const BODY = 'x'.repeat(600)

const post = (id: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const headers = { 'content-length': String(BODY.length), 'webhook-id': `bare-${id}` }
    const sent = request(url, { method: 'POST', agent, headers }, (response) => {
      response.resume().on('end', resolve)
    })
    sent.on('error', reject)
    sent.end(BODY)
  })

let next = 0
await Promise.all(
  Array.from({ length: Number(parallel) }, async () => {
    while (next < Number(count)) await post(next++)
  }),
)
agent.destroy()
