import type { SnapshotOf } from '@landfall/client'
import type { DemoKinds } from './kinds.js'
import { formatBytes, formatTimeLeft } from './format.js'

type Snapshot = SnapshotOf<DemoKinds>

/** What a person wants to know about an upload, in one line. */
export function statusOf({ activity, point, problem, progress, file }: Snapshot): string {
  if (point === 'referenced') return 'Arrived'
  if (point === 'failed') return problem?.detail ?? problem?.title ?? 'It was not accepted'
  if (point === 'cancelled') return 'Cancelling…'
  const done = `${formatBytes(progress.acceptedBytes)} of ${formatBytes(file.size)}`
  switch (activity.state) {
    case 'running':
      return [
        done,
        progress.bytesPerSecond === null ? null : `${formatBytes(progress.bytesPerSecond)}/s`,
        progress.timeLeftMs === null ? null : formatTimeLeft(progress.timeLeftMs),
      ]
        .filter((part) => part !== null)
        .join(' · ')
    case 'paused':
      return `Paused at ${done}`
    case 'finishing':
      return activity.stalled
        ? 'Everything is sent, but the server needs its operator'
        : 'Everything is sent, finishing…'
    case 'needs-file':
      return NEEDS_FILE[activity.why]
    case 'cancelling':
      return 'Cancelling…'
    case 'idle':
      return done
    case 'waiting':
      return `${WAITING[activity.why]} · ${done}`
  }
}

const WAITING = {
  turn: 'Waiting for its turn',
  network: 'Waiting for the network',
  server: 'Waiting for the server',
  authentication: 'Sign in to continue',
  'other-owner': 'Somebody else is signed in',
  'another-tab': 'Another tab is sending it',
} as const

const NEEDS_FILE = {
  'source-missing': 'Choose the same file again to resume',
  'source-changed': 'That is another file. Choose the file that you started with',
  'source-unreadable': 'The file can no longer be read. Choose it again',
} as const

/** For the colour and the symbol of its card. */
export function toneOf({
  activity,
  point,
}: Snapshot): 'running' | 'waiting' | 'paused' | 'attention' | 'failed' | 'finishing' {
  if (point === 'failed') return 'failed'
  if (activity.state === 'needs-file') return 'attention'
  if (activity.state === 'finishing') return activity.stalled ? 'attention' : 'finishing'
  if (activity.state === 'paused') return 'paused'
  return activity.state === 'waiting' ? 'waiting' : 'running'
}
