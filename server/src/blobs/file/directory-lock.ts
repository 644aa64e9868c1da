import { statSync } from 'node:fs'
import { endsWithin } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import { lockFile } from '../../lib/lock-file.js'

/** A store that holds a directory, as the other stores of its process see it. */
export interface Holder {
  /** Stores are numbered in the order in which they are made. Of two, the one with the greater number is the newer. */
  readonly turn: number
  /** Ends everything that uses the store, and resolves when the store has released the directory. */
  leave(): Promise<void>
}

/**
 * Which store of this process holds which directory, whichever copy of this module made the store. A development server
 * (Next, Vite) loads a module again after an edit, and bundles may contain it twice.
 */
const REGISTRY = Symbol.for('landfall.directories')
interface Registry {
  turns: number
  readonly holders: Map<string, Holder>
}
const registry = (): Registry =>
  ((globalThis as { [REGISTRY]?: Registry })[REGISTRY] ??= { turns: 0, holders: new Map() })

export const nextTurn = (): number => (registry().turns += 1)

/** How long an earlier store of this process may take to end what it is doing. */
const LEAVE_MS = 15_000

/**
 * Takes a directory for a store. A directory belongs to exactly one store of one process. If an earlier store of this
 * process holds it, that store is asked to leave and this call waits for it, so that two stores never write to the
 * directory. An older store never asks a newer one to leave.
 *
 * @throws UploadError `setup` when another process, or a newer store of this process, holds the directory.
 * `storage-unavailable` when an earlier store of this process does not release it in time.
 */
export async function takeDirectory(directory: string, holder: Holder): Promise<{ release(): void }> {
  const { holders } = registry()
  const { dev, ino } = statSync(directory)
  const name = `${dev}:${ino}`
  for (let before = holders.get(name); before !== undefined && before !== holder; before = holders.get(name)) {
    if (before.turn > holder.turn) throw takenOver()
    // The result of `leave` does not matter. What counts is whether the store has released the directory.
    await endsWithin(before.leave(), LEAVE_MS)
    if (holders.get(name) === before)
      throw new UploadError(
        'storage-unavailable',
        'an earlier instance of this application in the same process still holds the directory of blobs',
      )
  }
  // There is no await between here and `holders.set`. If several stores waited for the same one, the first gets the
  // directory.
  const lock = lockFile(directory, 'landfall.lock')
  if (lock === null)
    throw new UploadError(
      'setup',
      'another process uses this directory of blobs; a directory belongs to exactly one. It is another server, or an application that embeds Landfall. Commands talk to it through its socket; where it has none, stop it first',
    )
  holders.set(name, holder)
  return {
    release() {
      lock.release()
      if (holders.get(name) === holder) holders.delete(name)
    },
  }
}

/** The error that the older store throws from then on. */
export const takenOver = (): UploadError =>
  new UploadError(
    'setup',
    'a newer instance of this application in the same process has taken over the directory of blobs. This is normal when a development server has loaded the module again. Otherwise create the uploads once per process, or give each instance its own directory',
  )
