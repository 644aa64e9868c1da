import { POINTS } from '@landfall/shared'
import { Command, Option } from 'commander'
import { UploadError } from '../../lib/errors.js'
import type { Operator } from '../../operate/operator.js'
import type { EffectStanding } from '../../ports/ledger/effects.js'
import type { OperationFilter } from '../../ports/ledger/inventory.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import { aside, bytes, facts, json, line, table, time } from './print.js'
import { addSettings, DATA_SETTINGS, settingsOf } from './settings-options.js'
import { withOperator } from './with-operator.js'

interface ListFlags {
  owner?: string
  point?: OperationRecord['point']
  stalled?: true
  givenUp?: true
  after?: string
  limit: string
  json?: true
}

/** `landfall operations list | show | retry | cancel` */
export function operationsCommand(): Command {
  const operations = new Command('operations').description('show operations, and retry or cancel them')
  addSettings(operations.command('list').description('the newest first'), DATA_SETTINGS)
    .option('--owner <owner>', 'only this owner’s')
    .addOption(new Option('--point <point>', 'only those at this recovery point').choices(POINTS))
    .option('--stalled', 'only those whose attempts ran out')
    .option('--given-up', 'only those with an effect that was given up')
    .option('--after <key>', 'continue after this blob’s key')
    .option('--limit <count>', 'the largest number to show', '100')
    .option('--json', 'one operation per line, as JSON')
    .action(async (flags: ListFlags, command: Command) => {
      const { json: asJson, limit, ...filter } = flags
      const most = countOf(limit)
      await withOperator(settingsOf(command, { serves: false }), async (operator) => {
        let told = 0
        let last: OperationRecord | undefined
        for await (const found of pagesOf(operator, filter, most)) {
          if (asJson === true) for (const operation of found) json(operation)
          else printList(found, told > 0)
          told += found.length
          last = found.at(-1)
        }
        if (told === 0 && asJson !== true) line('none')
        if (last !== undefined && told === most) aside(`there may be more: --after ${last.blobKey}`)
      })
    })
  const one = (name: string, description: string): Command =>
    addSettings(operations.command(name).description(description), DATA_SETTINGS)
      .argument('<id>', 'the operation')
      .option('--owner <owner>', 'its owner; needed only if several owners use the same id')
  one('show', 'one operation with its effects, and why it makes no progress')
    .option('--json', 'as JSON')
    .action(async (id: string, flags: { owner?: string; json?: true }, command: Command) => {
      await withOperator(settingsOf(command, { serves: false }), async (operator) => {
        const shown = await operator.show(await keyOf(operator, id, flags.owner))
        if (shown === null) throw notFound()
        if (flags.json === true) json(shown)
        else printOne(shown.operation, shown.effects)
      })
    })
  one('retry', 'clear a stall, and retry effects that were given up').action(
    async (id: string, flags: { owner?: string }, command: Command) => {
      await withOperator(settingsOf(command, { serves: false }), async (operator, where) => {
        const key = await keyOf(operator, id, flags.owner)
        if (!(await operator.retry(key)))
          throw new UploadError('setup', 'there is nothing to retry: it is not stalled, and no effect was given up')
        line(where === 'server' ? 'it is tried again now' : 'it is tried again when a server runs')
      })
    },
  )
  one('cancel', 'end an operation that has no reference yet, as its owner could').action(
    async (id: string, flags: { owner?: string }, command: Command) => {
      await withOperator(settingsOf(command, { serves: false }), async (operator) => {
        const { point } = await operator.cancel(await keyOf(operator, id, flags.owner))
        line(point)
      })
    },
  )
  return operations
}

/** A page is one answer of the server, which has other requests to serve. */
const PAGE = 500

async function* pagesOf(
  operator: Operator,
  filter: OperationFilter & { after?: string },
  most: number,
): AsyncGenerator<readonly OperationRecord[]> {
  let { after } = filter
  for (let left = most; left > 0;) {
    const limit = Math.min(PAGE, left)
    const found = await operator.list({ ...filter, ...(after === undefined ? {} : { after }), limit })
    if (found.length > 0) yield found
    if (found.length < limit) return
    left -= limit
    after = found.at(-1)?.blobKey
  }
}

const notFound = (): UploadError => new UploadError('setup', 'there is no such operation')

function countOf(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new UploadError('setup', '--limit: a number from 1 to 999999')
  return Number(text)
}

/** An id is unique only within its owner. */
async function keyOf(operator: Operator, id: string, owner: string | undefined): Promise<OperationKey> {
  if (owner !== undefined) return { owner, id }
  const [found, another] = await operator.list({ id, limit: 2 })
  if (found === undefined) throw notFound()
  if (another !== undefined) throw new UploadError('setup', 'several owners use this id: add --owner')
  return { owner: found.owner, id }
}

const pointOf = ({ point, stalled }: OperationRecord): string => (stalled ? `${point} (stalled)` : point)

function printList(found: readonly OperationRecord[], continued: boolean): void {
  const rows = [
    ['id', 'owner', 'point', 'bytes', 'of', 'changed', 'file'],
    ...found.map((operation) => [
      operation.id,
      operation.owner,
      pointOf(operation),
      String(operation.offset),
      String(operation.file.size),
      time(operation.updatedAt),
      JSON.stringify(operation.file.name),
    ]),
  ]
  table(rows, { continued })
}

function printOne(operation: OperationRecord, effects: readonly EffectStanding[]): void {
  facts([
    ['id', operation.id],
    ['owner', operation.owner],
    ['kind', operation.kind],
    ['point', pointOf(operation)],
    [
      'file',
      `${JSON.stringify(operation.file.name)}, ${bytes(operation.file.size)}, ${operation.file.type === '' ? 'type not given' : operation.file.type}`,
    ],
    ['accepted', `${operation.offset} of ${operation.file.size} bytes`],
    ['digest', operation.reference?.digest ?? operation.content?.digest ?? operation.digest ?? '-'],
    ['blob', operation.blobKey],
    ['created', time(operation.createdAt)],
    ['changed', time(operation.updatedAt)],
    ['expires', time(operation.expiresAt)],
    ['due', time(operation.dueAt)],
    ['lease', operation.leaseHolder ?? '-'],
    ['attempts', String(operation.attempts)],
    ['last error', operation.lastError ?? '-'],
    ['problem', operation.problem === null ? '-' : (operation.problem.detail ?? operation.problem.title)],
    ['reference', operation.reference === null ? '-' : JSON.stringify(operation.reference.data)],
  ])
  if (effects.length === 0) return
  line()
  table([
    ['effect', 'id', 'type', 'attempts', 'state', 'last error'],
    ...effects.map((effect) => [
      effect.name,
      effect.effectId,
      effect.type,
      String(effect.attempts),
      stateOf(effect),
      effect.lastError ?? '-',
    ]),
  ])
}

function stateOf({ deliveredAt, givenUpAt, dueAt }: EffectStanding): string {
  if (deliveredAt !== null) return `delivered ${time(deliveredAt)}`
  if (givenUpAt !== null) return `given up ${time(givenUpAt)}`
  return `due ${time(dueAt)}`
}
