import type { SnapshotOf, UploadOf } from '@landfall/client'
import { element, setText } from './elements.js'
import { formatBytes } from './format.js'
import type { DemoKinds } from './kinds.js'
import { statusOf, toneOf } from './status.js'

type Snapshot = SnapshotOf<DemoKinds>
type Upload = UploadOf<DemoKinds>

/** One upload on the page. Its elements are updated and not replaced, so that the keyboard's focus stays. */
export interface UploadCard {
  readonly node: HTMLElement
  update(snapshot: Snapshot): void
}

export function createUploadCard(upload: Upload): UploadCard {
  const { name } = upload.file
  const percent = element('span', { class: 'percent' })
  const status = element('p', { class: 'status' })
  const badge = element('span', { class: 'badge', hidden: true }, 'recovered')
  const bar = element('progress', { max: 1, value: 0, 'aria-label': `Progress of ${name}` })
  const button = (label: string, className: string, onclick: () => void): HTMLButtonElement =>
    element(
      'button',
      { type: 'button', class: className, 'aria-label': `${label} ${name}`, hidden: true, onclick },
      label,
    )
  const pause = button('Pause', 'quiet', () => upload.pause())
  const resume = button('Resume', '', () => upload.resume())
  const again = button('Choose file', '', () => picker.click())
  const cancel = button('Cancel', 'quiet', () => void upload.cancel())
  const dismiss = button('Dismiss', 'quiet', () => void upload.acknowledge())
  const picker = element('input', { type: 'file', class: 'pick', tabindex: -1, 'aria-label': `The file ${name} again` })
  picker.addEventListener('change', () => {
    const [file] = picker.files ?? []
    if (file !== undefined) upload.provide(file)
    picker.value = ''
  })
  const node = element(
    'li',
    { class: 'card' },
    element(
      'div',
      { class: 'line' },
      element('strong', { class: 'name', title: name }, name),
      badge,
      element('span', { class: 'size' }, formatBytes(upload.file.size)),
      percent,
    ),
    bar,
    element(
      'div',
      { class: 'line' },
      status,
      element('div', { class: 'actions' }, pause, resume, again, cancel, dismiss, picker),
    ),
  )

  let shown: Snapshot | null = null
  return {
    node,
    update(snapshot) {
      // Among hundreds of cards, mostly one has changed.
      if (snapshot === shown) return
      shown = snapshot
      const { activity, point, progress, recovered } = snapshot
      const share = progress.sizeBytes === 0 ? 1 : progress.acceptedBytes / progress.sizeBytes
      node.dataset['tone'] = toneOf(snapshot)
      setText(status, statusOf(snapshot))
      setText(percent, `${Math.floor(share * 100)} %`)
      bar.value = share
      const open = point === 'intended' || point === 'declared'
      badge.hidden = !recovered || point === 'failed'
      bar.hidden = percent.hidden = point === 'failed'
      pause.hidden = !open || !['running', 'waiting'].includes(activity.state)
      resume.hidden = activity.state !== 'paused'
      again.hidden = activity.state !== 'needs-file'
      cancel.hidden = point === 'failed' || point === 'cancelled' || point === 'referenced'
      dismiss.hidden = point !== 'failed'
    },
  }
}
