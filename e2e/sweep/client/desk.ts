import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Moment, Note } from '../../clients/swept-page.js'

/** Where the swept page reports, and from where it is killed: `/sweep/…` of its own site. */
export interface Desk {
  readonly path: string
  answer(req: IncomingMessage, res: ServerResponse): void
  /** For the next page. */
  plan: Moment | null
  /** Awaited before the page goes on. */
  onNote: (note: Note) => Promise<void> | void
  /** The page stands still at its planned moment, for good. */
  onStopped: () => void
}

export function createDesk(): Desk {
  const desk: Desk = {
    path: '/sweep/',
    plan: null,
    onNote: () => {},
    onStopped: () => {},
    answer(req, res) {
      if (req.url === '/sweep/plan') res.end(JSON.stringify(desk.plan))
      // Never answered.
      else if (req.url === '/sweep/die') desk.onStopped()
      else void noted(req, res)
    },
  }
  async function noted(req: IncomingMessage, res: ServerResponse): Promise<void> {
    let body = ''
    for await (const text of req.setEncoding('utf8')) body += String(text)
    await desk.onNote(JSON.parse(body) as Note)
    res.writeHead(204).end()
  }
  return desk
}
