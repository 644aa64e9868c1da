import { isKey } from '../key.js'
import { UploadError } from '../../lib/errors.js'

/**
 * The names of objects. The names of everything that belongs to an upload contain its key, so that they can be found by
 * it.
 */
export interface Names {
  readonly prefix: string
  readonly blobs: string
  readonly tails: string
  readonly quarantine: string
  readonly identity: string
  readonly mark: string
  readonly probes: string
  /** @throws UploadError `storage-unavailable` for anything that is not a key of this store. */
  blob(key: string): string
  /** Returns null if Landfall did not give this name. */
  keyOfBlob(name: string): string | null
  tail(key: string, piece: string): string
  tailsOf(key: string): string
  keyOfTail(name: string): string | null
  marker(key: string, sinceAt: number): string
  markersOf(key: string): string
  keyOfMarker(name: string): { key: string; sinceAt: number } | null
}

export function createNames(prefix: string, objectName: (key: string) => string): Names {
  const blobs = `${prefix}blobs/`
  const tails = `${prefix}tails/`
  const quarantine = `${prefix}quarantine/`
  const checked = (key: string): string => {
    if (!isKey(key)) throw new UploadError('storage-unavailable', 'not a key of this store')
    return key
  }
  const blob = (key: string): string => blobs + objectName(checked(key))
  return {
    prefix,
    blobs,
    tails,
    quarantine,
    identity: `${prefix}store.json`,
    mark: `${prefix}mark.json`,
    probes: `${prefix}probes/`,
    blob,
    keyOfBlob(name) {
      const key = /[0-9a-f]{32}$/.exec(name)?.[0]
      return key !== undefined && blob(key) === name ? key : null
    },
    tail: (key, piece) => `${tails}${checked(key)}/${piece}`,
    tailsOf: (key) => `${tails}${checked(key)}/`,
    keyOfTail(name) {
      const key = name.slice(tails.length, tails.length + 32)
      return isKey(key) && name[tails.length + 32] === '/' ? key : null
    },
    marker: (key, sinceAt) => `${quarantine}${checked(key)}.${sinceAt}`,
    markersOf: (key) => `${quarantine}${checked(key)}.`,
    keyOfMarker(name) {
      const [key = '', since = ''] = name.slice(quarantine.length).split('.')
      return isKey(key) && /^\d{1,16}$/.test(since) ? { key, sinceAt: Number(since) } : null
    },
  }
}

const EARLY = '019000000000'.padEnd(32, '0')
const LATE = '01ffffffffff'.padEnd(32, 'f')

/** @throws UploadError `setup` if names do not end with their key, or are not in the order of their keys. */
export function checkObjectName(objectName: (key: string) => string): void {
  const [early, late] = [objectName(EARLY), objectName(LATE)]
  if (!early.endsWith(EARLY) || !late.endsWith(LATE) || early >= late)
    throw new UploadError('setup', 'objectName: names must end with their key, and be in the order of the keys')
}
