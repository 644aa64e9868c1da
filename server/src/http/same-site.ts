import type { Context, MiddlewareHandler } from 'hono'
import { refuse } from '../lib/problem-error.js'

/** RFC 9110 section 9.2.1. A request with any other method changes something. */
export const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** Origins of other sites: a list, or a function that gets the origin of the request (for preview deployments). */
export type AllowedOrigins = readonly string[] | ((origin: string, c: Context) => boolean | Promise<boolean>)

export const allowsOrigin = async (allowed: AllowedOrigins, origin: string, c: Context): Promise<boolean> =>
  typeof allowed === 'function' ? allowed(origin, c) : allowed.includes(origin)

/** Accepts `https://app.example`, and the schemes of applications: `capacitor://localhost`, `chrome-extension://…`. */
export function isOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { origin, protocol, host } = new URL(text)
  return text === (origin === 'null' ? `${protocol}//${host}` : origin) && host !== ''
}

/**
 * A request that a browser sends with cookies may come from any site. A request that changes something must come from
 * this origin, or from one that the application allows. Programs that are not browsers send neither header.
 *
 * @see https://www.w3.org/TR/fetch-metadata/ and RFC 6454
 */
export function sameSite(allowed: AllowedOrigins): MiddlewareHandler {
  return async (c, next) => {
    if (!SAFE_METHODS.has(c.req.method) && c.req.header('Cookie') !== undefined) {
      const difference = await whatDiffers(c, allowed)
      if (difference !== null) throw refuse('cross-site', { detail: difference })
    }
    await next()
  }
}

const ALLOW = 'If the page is meant to upload here, name its origin in allowedOrigins.'

const PASS_HOST =
  'If both are the same site behind a proxy, the proxy must pass on the Host header that it received ' +
  '(nginx: proxy_set_header Host $http_host; Vite: changeOrigin: false).'

/**
 * Null for a request of this origin or of an allowed one. Otherwise a text for the person who runs a server behind a
 * proxy.
 */
async function whatDiffers(c: Context, allowed: AllowedOrigins): Promise<string | null> {
  const origin = c.req.header('Origin')
  if (origin !== undefined && (await allowsOrigin(allowed, origin, c))) return null
  const site = c.req.header('Sec-Fetch-Site')
  if (site === 'same-origin' || site === 'none') return null
  if (site !== undefined)
    return `The browser says that the page (${origin ?? 'origin unknown'}) and this server are ${site}, not same-origin. ${ALLOW}`
  if (origin === undefined) return null
  const host = c.req.header('Host') ?? ''
  if (isSameHost(origin, host)) return null
  return `The page's origin is ${origin}, but the request's Host is ${host}. ${PASS_HOST} ${ALLOW}`
}

/** Proxies report wrong schemes, so only the host can be compared, with the port that the origin's scheme implies. */
function isSameHost(origin: string, host: string): boolean {
  // The URL parser would read a path or a user name from a text that is no host.
  if (!URL.canParse(origin) || !/^[^\s/\\?#@]+$/.test(host)) return false
  const page = new URL(origin)
  const asked = `${page.protocol}//${host}`
  return page.host !== '' && URL.canParse(asked) && new URL(asked).host === page.host
}
