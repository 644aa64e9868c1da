import { createUploader, type Uploader } from '@landfall/client'
import workerUrl from '@landfall/client/worker?url'
import type { DemoUploads } from '../demo.js'
import type { DemoKinds } from './kinds.js'
import { byId, element } from './elements.js'
import { createFileList } from './file-list.js'
import { createUploadCard, type UploadCard } from './upload-card.js'

const news = byId('news', HTMLParagraphElement)
const say = (text: string): void => void (news.textContent = text)
const files = createFileList(say)

const WARNINGS = {
  'journal-in-memory': 'This browser stores nothing. If you close the tab, you have to upload unfinished files again.',
  'no-locks': 'This browser cannot coordinate its tabs. Keep only one of them open.',
  'no-worker':
    'Files are checked more slowly in this browser. If you close the tab, you have to choose unfinished files again.',
  'no-copy': 'There is no room to keep a copy of a file. If you close the tab, you have to choose it again.',
  'no-owner': 'The server does not say whose account this is, so nothing is uploaded.',
  'handler-failed': 'Something went wrong on this page.',
} as const

/** Everything that belongs to one visitor. It ends when another visitor signs in. */
function startFor(visitor: string): Uploader<DemoKinds> {
  const uploader = createUploader<DemoUploads>({ endpoint: '/uploads', scope: visitor, workerUrl })
  const cards = new Map<string, UploadCard>()
  const list = byId('uploads', HTMLUListElement)
  const section = byId('uploads-section', HTMLElement)
  const warnings = byId('warnings', HTMLUListElement)
  warnings.replaceChildren()

  uploader.on('referenced', async (upload) => {
    files.welcome(upload.id)
    // The file has arrived, even if the list cannot be loaded now.
    await files.refresh().catch(() => {})
    say(`${upload.file.name} has arrived`)
    await upload.acknowledge()
  })
  uploader.on('failed', (upload) => say(`${upload.file.name}: ${upload.problem.detail ?? upload.problem.title}`))
  uploader.on('unauthenticated', ({ reason }) =>
    say(
      reason === 'other-owner'
        ? `Somebody else is signed in: sign in as ${visitor} to continue`
        : 'Sign in to continue',
    ),
  )
  uploader.on('warning', ({ code }) => {
    if ([...warnings.children].some((item) => item.textContent === WARNINGS[code])) return
    warnings.append(element('li', {}, WARNINGS[code]))
  })

  const render = (): void => {
    const { uploads } = uploader.snapshot()
    for (const snapshot of uploads) {
      const upload = uploader.get(snapshot.id)
      if (upload === null) continue
      const card = cards.get(snapshot.id) ?? createUploadCard(upload)
      if (!cards.has(snapshot.id)) list.append(card.node)
      cards.set(snapshot.id, card)
      card.update(snapshot)
    }
    const there = new Set(uploads.map(({ id }) => id))
    for (const [id, card] of cards) {
      if (there.has(id)) continue
      card.node.remove()
      cards.delete(id)
    }
    section.hidden = uploads.length === 0
  }
  uploader.subscribe(render)
  list.replaceChildren()
  void uploader.start().then(render)
  return uploader
}

class RefusedName extends Error {}

async function session(name?: string): Promise<string> {
  const change = { method: 'PUT', body: JSON.stringify({ name }), headers: { 'Content-Type': 'application/json' } }
  const response = await fetch('/api/session', name === undefined ? {} : change)
  if (response.status === 400) throw new RefusedName(((await response.json()) as { error: string }).error)
  if (!response.ok) throw new Error(`the server answered ${response.status}`)
  return ((await response.json()) as { name: string }).name
}

const nameField = byId('name', HTMLInputElement)
let visitor = await session()
let uploader = startFor(visitor)
nameField.value = visitor
await files.refresh().catch(() => say('The server does not answer. Reload the page to see your files'))

/** All tabs share one cookie. While one tab signs somebody in, the others send nothing. They reload afterwards. */
const tabs = new BroadcastChannel('landfall-demo-session')
tabs.addEventListener('message', ({ data }) => (data === 'switched' ? location.reload() : void uploader.close()))

let switching: Promise<void> = Promise.resolve()
byId('account', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  const name = nameField.value.trim()
  switching = switching.then(() => switchTo(name))
})
async function switchTo(name: string): Promise<void> {
  if (name === visitor) return
  // No upload of the first visitor may be sent with the cookie of the second.
  tabs.postMessage('switching')
  await uploader.close()
  try {
    visitor = await session(name)
    uploader = startFor(visitor)
    await files.refresh()
    say(`Signed in as ${visitor}`)
  } catch (error) {
    await uploader.start()
    say(error instanceof RefusedName ? `The server wants ${error.message}` : 'The server does not answer. Try again')
  }
  tabs.postMessage('switched')
  nameField.value = visitor
}

const take = async (picked: Iterable<File>): Promise<void> => {
  const taken = [...picked]
  // The files belong to the visitor who is signed in after a switch that is under way.
  await switching
  for (const file of taken) uploader.add(file, { kind: 'file' })
}
const pick = byId('pick', HTMLInputElement)
pick.addEventListener('change', () => {
  void take(pick.files ?? [])
  pick.value = ''
})

const drop = byId('drop', HTMLElement)
// `dragenter` and `dragleave` cannot be counted: an element that is removed under the pointer sends only one of them.
addEventListener('dragover', (event) => {
  event.preventDefault()
  drop.classList.add('over')
})
addEventListener('dragleave', (event) => {
  if (event.relatedTarget === null) drop.classList.remove('over')
})
addEventListener('drop', (event) => {
  event.preventDefault()
  drop.classList.remove('over')
  void take(event.dataTransfer?.files ?? [])
})
