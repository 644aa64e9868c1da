import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { HTTPException } from 'hono/http-exception'
import { stream } from 'hono/streaming'
import * as v from 'valibot'
import { faultCode, type UploadErrorCode } from '../lib/errors.js'
import { messageOf } from '../lib/problem-error.js'
import type { Operator } from './operator.js'
import type { Finding, ReconcileOptions, ReconcileProgress, ReconcileReport } from './reconcile.js'

/** Raised when a call or its answer changes, because a command and a server of different versions must not guess. */
export const PROTOCOL = 2

/** The largest call, in bytes. A call contains a few options. */
const LARGEST_CALL = 64 * 1024

export const NDJSON = 'application/x-ndjson'

/** The calls that are answered by one JSON value: `POST /{name}`, with the argument as the JSON body. */
export type PlainCall = Exclude<keyof Operator, 'reconcile'>

export interface CallError {
  readonly message: string
  readonly code: UploadErrorCode | null
}

/** A line of the answer to `POST /reconcile`. The last one is the report or the error. */
export type ReconcileLine =
  | { readonly finding: Finding }
  | { readonly progress: ReconcileProgress }
  | { readonly report: ReconcileReport }
  | { readonly error: CallError }

const key = v.object({ owner: v.string(), id: v.string() })
const ARGUMENTS = {
  list: v.looseObject({}),
  show: key,
  retry: key,
  cancel: key,
  forgetOwner: v.object({ owner: v.string(), apply: v.optional(v.boolean()) }),
  doctor: v.strictObject({}),
} satisfies Record<PlainCall, v.GenericSchema>

const reconcileArgument = v.strictObject({
  apply: v.optional(v.boolean()),
  force: v.optional(v.boolean()),
  acceptRestored: v.optional(v.boolean()),
  quarantineMs: v.optional(v.pipe(v.number(), v.minValue(0))),
})

const errorOf = (error: unknown): CallError => ({ message: messageOf(error), code: faultCode(error) })

/**
 * The operator over HTTP, for the commands. It has no authentication of its own: every process that can open the socket
 * on which it is served may do everything.
 */
export function operatorApp(operator: Operator): Hono {
  const app = new Hono()
  app.use(bodyLimit({ maxSize: LARGEST_CALL }))
  app.onError((error, c) => {
    if (error instanceof HTTPException) return error.getResponse()
    return c.json(errorOf(error), error instanceof v.ValiError || error instanceof SyntaxError ? 400 : 500)
  })
  app.get('/version', (c) => c.json({ protocol: PROTOCOL }))

  for (const call of Object.keys(ARGUMENTS) as PlainCall[])
    app.post(`/${call}`, async (c) => {
      const argument: unknown = v.parse(ARGUMENTS[call], await c.req.json())
      return c.json(await (operator[call] as (argument: unknown) => Promise<unknown>)(argument))
    })

  app.post('/reconcile', async (c) => {
    const options = v.parse(reconcileArgument, await c.req.json()) as ReconcileOptions
    c.header('Content-Type', NDJSON)
    return stream(c, async (out) => {
      // The command has gone away, so the work stops.
      const gone = new AbortController()
      out.onAbort(() => gone.abort())
      const tell = async (line: ReconcileLine): Promise<void> => void (await out.write(`${JSON.stringify(line)}\n`))
      try {
        const report = await operator.reconcile({
          ...options,
          signal: gone.signal,
          // Awaited: a reader that is slow slows the work down, so that no findings pile up in memory.
          onFinding: (finding) => tell({ finding }),
          onProgress: (progress) => void tell({ progress }),
        })
        await tell({ report })
      } catch (error) {
        await tell({ error: errorOf(error) })
      }
    })
  })
  return app
}
