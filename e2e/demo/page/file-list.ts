import { byId, element } from './elements.js'
import { formatBytes, formatWhen } from './format.js'

export interface StoredFile {
  readonly id: number
  readonly operationId: string
  readonly name: string
  readonly size: number
  readonly type: string
  readonly arrivedAt: number
}

/** The files in the application's own table. */
export interface FileList {
  refresh(): Promise<void>
  /** Marks a file that has just arrived. */
  welcome(operationId: string): void
}

export function createFileList(say: (news: string) => void): FileList {
  const list = byId('files', HTMLUListElement)
  const empty = byId('empty', HTMLParagraphElement)
  const fresh = new Set<string>()
  const rows = new Map<number, HTMLElement>()
  let running: Promise<void> | null = null
  let next: Promise<void> | null = null

  /** One request serves all callers that came before it was sent, so that a hundred arrivals do not load a hundred lists. */
  function refresh(): Promise<void> {
    if (running === null) return (running = read().finally(() => (running = null)))
    next ??= running
      .catch(() => {})
      .then(() => {
        next = null
        return refresh()
      })
    return next
  }

  async function read(): Promise<void> {
    const response = await fetch('/api/files')
    if (response.ok) show(((await response.json()) as { files: StoredFile[] }).files)
  }

  /** Newest first. Rows that exist keep their elements, so that nothing moves and a screen reader reads nothing twice. */
  function show(files: readonly StoredFile[]): void {
    const there = new Set(files.map(({ id }) => id))
    for (const [id, node] of rows) {
      if (there.has(id)) continue
      node.remove()
      rows.delete(id)
    }
    for (const file of files.toReversed()) {
      if (rows.has(file.id)) continue
      const made = row(file)
      made.dataset['operation'] = file.operationId
      rows.set(file.id, made)
      list.prepend(made)
    }
    empty.hidden = files.length > 0
  }

  const row = (file: StoredFile): HTMLElement =>
    element(
      'li',
      { class: fresh.has(file.operationId) ? 'card stored fresh' : 'card stored' },
      element(
        'div',
        { class: 'line' },
        element('strong', { class: 'name', title: file.name }, file.name),
        element('span', { class: 'size' }, formatBytes(file.size)),
      ),
      element(
        'div',
        { class: 'line' },
        element('p', { class: 'status' }, `${file.type} · ${formatWhen(file.arrivedAt)}`),
        element(
          'div',
          { class: 'actions' },
          element(
            'a',
            {
              class: 'button quiet',
              href: `/uploads/files/${file.operationId}`,
              download: file.name,
              'aria-label': `Download ${file.name}`,
            },
            'Download',
          ),
          element(
            'button',
            { type: 'button', class: 'quiet', 'aria-label': `Remove ${file.name}`, onclick: () => void remove(file) },
            'Remove',
          ),
        ),
      ),
    )

  async function remove(file: StoredFile): Promise<void> {
    if (!(await confirmed(`Remove ${file.name}? It cannot be brought back.`))) return
    const response = await fetch(`/api/files/${file.id}`, { method: 'DELETE' })
    say(response.ok ? `${file.name} was removed` : `${file.name} could not be removed`)
    await refresh()
  }

  return {
    refresh,
    welcome(operationId) {
      fresh.add(operationId)
      // A refresh for an earlier file may have listed this one already.
      for (const node of rows.values()) if (node.dataset['operation'] === operationId) node.classList.add('fresh')
    },
  }
}

function confirmed(question: string): Promise<boolean> {
  const dialog = byId('confirm', HTMLDialogElement)
  byId('confirm-text', HTMLParagraphElement).textContent = question
  dialog.returnValue = 'no'
  dialog.showModal()
  return new Promise((resolve) =>
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }),
  )
}
