/** How an upload ends on the page, and that it never ends there before it has ended on the server. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pseudoRandomBytes, sha256Of } from '../../ground/files.js'
import {
  buttonOf,
  cardOf,
  expectArrivedOn,
  journalOf,
  load,
  nameOf,
  pick,
  saidBy,
  shot,
  storedOf,
} from './on-the-page.js'
import { MIB, expect, expectStored, test } from './support.js'

test('a hook that throws twice ends in one reference, and the page never says so before', async ({
  begin,
  visitor,
  sources,
}) => {
  const story = await begin({ hooks: [{ files: 'report', at: 'after-row', does: 'throw', times: 2, ms: 400 }] })
  const file = await sources.file('report.pdf', 3 * MIB)
  await load(visitor, story)
  await pick(visitor, file)
  let looks = 0
  let pictures = 0
  for (let isShown = false; !isShown; looks += 1) {
    // The page first, the database after it: what is shown must be true already.
    isShown = (await storedOf(visitor, file).count()) > 0 || (await saidBy(visitor)).includes('report.pdf has arrived')
    const { rows, references } = await story.truth()
    if (isShown) expect({ rows: rows.length, references: references.length }).toEqual({ rows: 1, references: 1 })
    expect(rows.length).toBe(references.length)
    const isFinishing = (await cardOf(visitor, file).getByText('finishing').count()) > 0
    if (isFinishing && pictures++ === 0) await shot(visitor, 'finishing')
  }
  expect(looks).toBeGreaterThan(5)
  await expectArrivedOn(visitor, [file])
  const said = await saidBy(visitor)
  const finishing = said.findIndex((words) => words.includes('Everything is sent, finishing'))
  const arrived = said.findIndex((words) => words.includes('has arrived'))
  expect(finishing).toBeGreaterThan(-1)
  expect(arrived).toBeGreaterThan(finishing)
  const { faults } = await story.report()
  expect(faults.map(({ message }) => message)).toEqual(['onReference fails, 1 of 2', 'onReference fails, 2 of 2'])
  await expectStored(story, [file])
})

const EICAR = String.raw`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`
const WORDS = 'The scanner found a virus in this file.'

test('a rejection is final: its words stay over a reload, the bytes go', async ({ begin, profile, sources }) => {
  const story = await begin()
  const path = join(sources.directory, 'invoice.exe')
  await writeFile(path, Buffer.concat([Buffer.from(EICAR), pseudoRandomBytes(2 * MIB, 'infected')]))
  const infected = { path, sizeBytes: EICAR.length + 2 * MIB, sha256: await sha256Of(path) }
  const context = await profile.open()
  const page = await context.newPage()
  await load(page, story)
  await pick(page, infected)
  await expect(cardOf(page, infected)).toContainText(WORDS)
  await shot(page, 'rejected')
  const rejected = await story.until(({ operations, blobs }) => operations[0]?.point === 'rejected' && blobs.size === 0)
  expect(rejected).toMatchObject({ references: [], rows: [] })

  await load(page, story)
  await expect(cardOf(page, infected)).toContainText(WORDS)
  await shot(page, 'rejected-after-a-reload')
  const { id } = rejected.operations[0] ?? { id: '' }
  const declared = story.proxy.requests.find(({ method }) => method === 'PUT')
  const answers = await page.evaluate(
    async ({ url, body }) => {
      const put = await fetch(url, { method: 'PUT', body, headers: { 'Content-Type': 'application/json' } })
      return { put: (await put.json()) as unknown, get: (await (await fetch(url)).json()) as unknown }
    },
    { url: `/uploads/operations/${id}`, body: declared?.bodyStart.toString() ?? '' },
  )
  const final = { id, recoveryPoint: 'rejected', problem: { code: 'infected', detail: WORDS } }
  expect(answers).toMatchObject({ put: final, get: final })

  await buttonOf(page, 'Dismiss', infected).click()
  await expect(cardOf(page, infected)).toHaveCount(0)
  await expect.poll(() => journalOf(page)).toEqual([])
  await load(page, story)
  await expect(page.getByText(nameOf(infected))).toHaveCount(0)
  expect(await story.truth()).toMatchObject({ references: [], rows: [], operations: [{ id, point: 'rejected' }] })
})
