/**
 * The tags of owners, as in Landfall's client: asked for once with `GET /operations?open`, and sent with later requests.
 */
export function ownerTags(ask: (owner: string) => Promise<Response>): (owner: string) => Promise<string> {
  const known = new Map<string, string>()
  return async (owner) => {
    const tag = known.get(owner) ?? (await tagOf(await ask(owner)))
    known.set(owner, tag)
    return tag
  }
}

async function tagOf(answer: Response): Promise<string> {
  const tag = answer.headers.get('Landfall-Owner')
  if (tag === null) throw new Error(`${answer.status} without the owner's tag: ${await answer.text()}`)
  await answer.body?.cancel()
  return tag
}
