import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Moment, Note } from '../../clients/swept-page.js'

/** Where the swept page sends its reports, and where it waits to be killed: `/sweep/…` of its own site. */
export interface Desk {
  readonly path: string
  answer(req: IncomingMessage, res: ServerResponse): void
  /** The moment at which the next page is to be killed. */
  plan: Moment | null
  /** The page waits until this has resolved. */
  onNote: (note: Note) => Promise<void> | void
  /** Called when the page has stopped permanently at its planned moment. */
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
      // This request is never answered.
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
