/**
 * The receiver as a process of its own, to be killed, stopped and slow: `node webhook-receiver.js PORT FILE SLOW_MS`. It
 * writes a line for each delivery that it took, `webhook-id operation-id`, and answers up to SLOW_MS later.
 */
import { appendFileSync } from 'node:fs'
import { startReceiver } from './receiver.js'

const [port = '', file = '', slowMs = ''] = process.argv.slice(2)
await startReceiver({
  port: Number(port),
  answersAfterMs: () => Math.random() * Number(slowMs),
  onDelivery: (effectId, operationId) => appendFileSync(file, `${effectId} ${operationId}\n`),
})
process.stdout.write('ready\n')
