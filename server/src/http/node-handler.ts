import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { FILES, OPERATIONS } from '@landfall/shared'
import { Hono } from 'hono'
import type { Env } from './context.js'

/** A handler for Node's own HTTP server, which Express, Fastify, Next and others can call. */
export type NodeHandler = (incoming: IncomingMessage, outgoing: ServerResponse) => Promise<void>

/**
 * Serves the routes under any path with which they are called: Express removes the prefix of a mount, Fastify and a
 * plain server keep it.
 */
export function createNodeHandler(routes: () => Hono<Env>, basePath: string): NodeHandler {
  let listen: NodeHandler | null = null
  const getPath = (request: Request): string => belowMount(new URL(request.url).pathname, basePath)
  return (incoming, outgoing) => {
    listen ??= getRequestListener(new Hono<Env>({ getPath }).route('/', routes()).fetch, {
      // An application that serves more than uploads keeps its own globals.
      overrideGlobalObjects: false,
    })
    return listen(incoming, outgoing)
  }
}

function belowMount(path: string, basePath: string): string {
  if (basePath !== '' && path.startsWith(`${basePath}/`)) return path.slice(basePath.length)
  const at = Math.max(path.lastIndexOf(OPERATIONS), path.lastIndexOf(FILES))
  return at < 0 ? path : path.slice(at)
}
