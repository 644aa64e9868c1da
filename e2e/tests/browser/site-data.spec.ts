/** The user deletes the site's data while an upload runs: the browser closes and removes every database. */
import { cardOf, journalOf, pick, visit } from './on-the-page.js'
import { MIB, expect, expectStored, inTheMiddle, test } from './support.js'

test('site data that is deleted while an upload runs costs nothing: it stays in the list and arrives', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('film.mov', 60 * MIB)
  const context = await profile.open()
  const page = await visit(context, story)
  story.proxy.setRate({ up: 10 * MIB })
  await pick(page, file)
  await inTheMiddle(story, file, 0.3)
  const session = await context.newCDPSession(page)
  // As "delete site data" does it; the cookie stays, since the user is to stay signed in.
  await session.send('Storage.clearDataForOrigin', { origin: story.proxy.origin, storageTypes: 'indexeddb' })
  await expect(cardOf(page, file)).toHaveCount(1)
  story.proxy.setRate({ up: 40 * MIB })
  await expectStored(story, [file])
  await expect(page.locator('#uploads > .card')).toHaveCount(0)
  expect(await journalOf(page)).toEqual([])
})
