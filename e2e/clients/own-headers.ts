import { OPERATIONS, OWNER_TAG_HEADER, VERSION, VERSION_HEADER } from '@landfall/shared'

const known = new Map<string, string>()

/**
 * What Landfall's own client sends with every request: these credentials, the version, and the tag of their owner, which
 * the server is asked for first.
 *
 * @param mount The URL at which the routes are mounted.
 * @throws when the server does not say whose the uploads are.
 */
export async function ownHeaders(
  mount: string,
  credentials: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  const key = JSON.stringify([mount, credentials])
  const tag = known.get(key) ?? (await ask(mount, credentials))
  known.set(key, tag)
  return { ...credentials, [VERSION_HEADER]: VERSION, [OWNER_TAG_HEADER]: tag }
}

async function ask(mount: string, credentials: Readonly<Record<string, string>>): Promise<string> {
  const answer = await fetch(`${mount}${OPERATIONS}?open`, { headers: credentials })
  const text = await answer.text()
  const tag = answer.headers.get(OWNER_TAG_HEADER)
  if (tag === null) throw new Error(`GET ?open was answered ${answer.status} without the owner's tag: ${text}`)
  return tag
}
