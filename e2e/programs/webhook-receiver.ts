/**
 * The receiver as a separate process that can be killed, suspended and slow: `node webhook-receiver.js PORT FILE
 * SLOW_MS`. For each delivery that it accepts it writes a line, `webhook-id operation-id`, and answers up to SLOW_MS
 * later.
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
