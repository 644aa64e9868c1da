import { numbered, type Plan, type Statement } from '../query.js'
import type { Connection } from './client/connection.js'

function ask(on: Connection, { wants, sql, args }: Statement): unknown {
  const { sql: text, values } = numbered(sql, args)
  switch (wants) {
    case 'row':
      return on.get(text, values)
    case 'rows':
      return on.all(text, values)
    case 'changes':
      return on.run(text, values)
    default:
      return wants satisfies never
  }
}

/** Runs a plan on a connection to its end, without yielding to the event loop. */
export function runNow<T>(on: Connection, plan: Plan<T>): T {
  let step = plan.next()
  while (step.done !== true) step = plan.next(ask(on, step.value))
  return step.value
}
