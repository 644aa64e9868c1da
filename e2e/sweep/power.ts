import { existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'

/** A line of the log that `preload.cjs` writes, which explains it. */
export type LogLine =
  | { readonly plan: unknown }
  | { readonly call: string; readonly nth: number }
  | { readonly wal: string; readonly size: number; readonly synced: boolean }
  | { readonly created: string }
  /** A file that existed before was opened to be written. */
  | { readonly opened: string; readonly size: number }
  | { readonly written: string; readonly from: number; readonly to: number; readonly synced?: boolean }
  | { readonly truncated: string; readonly size: number }
  | { readonly syncing: string }
  | { readonly synced: string }
  | { readonly removed: string; readonly copy?: string | null }
  | { readonly renamed: string; readonly to: string; readonly copy: string | null }

export const readLog = (path: string): LogLine[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as LogLine]
      } catch {
        // The process was killed while it wrote the line.
        return []
      }
    })

interface Range {
  readonly from: number
  readonly to: number
}

/** A change of a directory's entries that has not been synced. */
type Entry =
  | { readonly type: 'created'; readonly path: string }
  | { readonly type: 'removed'; readonly path: string; readonly copy: string | null }
  | { readonly type: 'renamed'; readonly path: string; readonly from: string; readonly copy: string | null }

/** Which ranges of a file are on the disk, and which are only in the kernel's memory. */
interface Content {
  durable: Range[]
  pending: Range[]
  /** What the sync that runs now will make durable. */
  syncing: Range[]
}

export interface Losses {
  /** Files that were cut or zeroed, and how many bytes of each. */
  readonly files: { readonly path: string; readonly bytes: number }[]
  /** Names that were never there, or are there again. */
  readonly names: string[]
  /** How many bytes of the write-ahead log were lost. */
  readonly walBytes: number
}

/** What a loss of power would take away, according to the log. */
export interface Unsynced {
  readonly contents: ReadonlyMap<string, Content>
  readonly entries: readonly Entry[]
  readonly wals: ReadonlyMap<string, number>
}

export function unsyncedOf(lines: readonly LogLine[]): Unsynced {
  const contents = new Map<string, Content>()
  const contentOf = (path: string): Content => {
    const known = contents.get(path) ?? { durable: [], pending: [], syncing: [] }
    contents.set(path, known)
    return known
  }
  let entries: Entry[] = []
  const syncingEntries = new Map<string, Set<Entry>>()
  const wals = new Map<string, number>()

  for (const line of lines) {
    if ('wal' in line) {
      if (line.synced) wals.set(line.wal, line.size)
      else if (!wals.has(line.wal)) wals.set(line.wal, 0)
    } else if ('created' in line) {
      entries.push({ type: 'created', path: line.created })
      contents.delete(line.created)
    } else if ('opened' in line) {
      const known = contents.get(line.opened)
      // There is no line for what was being written when the process was killed. The next sync makes it durable too.
      if (known !== undefined) known.pending.push({ from: 0, to: line.size })
      else contentOf(line.opened).durable.push({ from: 0, to: line.size })
    } else if ('written' in line) {
      const { from, to } = line
      const content = contentOf(line.written)
      ;(line.synced === true ? content.durable : content.pending).push({ from, to })
    } else if ('truncated' in line) {
      const content = contentOf(line.truncated)
      const cut = ({ from, to }: Range): Range => ({ from, to: Math.min(to, line.size) })
      content.pending = content.pending.map(cut).filter(({ from, to }) => to > from)
      content.durable = content.durable.map(cut).filter(({ from, to }) => to > from)
    } else if ('syncing' in line) {
      const content = contents.get(line.syncing)
      if (content !== undefined) content.syncing = [...content.pending]
      syncingEntries.set(line.syncing, new Set(entries.filter((entry) => dirname(entry.path) === line.syncing)))
    } else if ('synced' in line && typeof line.synced === 'string') {
      const path = line.synced
      const content = contents.get(path)
      if (content !== undefined) {
        content.durable.push(...content.syncing)
        content.pending = content.pending.filter((range) => !content.syncing.includes(range))
        content.syncing = []
      }
      const done = syncingEntries.get(path)
      if (done !== undefined) entries = entries.filter((entry) => !done.has(entry))
    } else if ('removed' in line) {
      entries.push({ type: 'removed', path: line.removed, copy: line.copy ?? null })
      contents.delete(line.removed)
    } else if ('renamed' in line) {
      entries.push({ type: 'renamed', path: line.to, from: line.renamed, copy: line.copy })
      const content = contents.get(line.renamed)
      contents.delete(line.renamed)
      if (content !== undefined) contents.set(line.to, content)
    }
  }
  return { contents, entries, wals }
}

/**
 * Changes the directory of a killed process as a loss of power could have done: everything that was not synced is gone.
 * `cut`: files end where their synced bytes end. `zero`: files keep their length and have zeros there, as file systems
 * leave them that write the length before the bytes.
 */
export async function losePower({ contents, entries, wals }: Unsynced, how: 'cut' | 'zero'): Promise<Losses> {
  const files: { path: string; bytes: number }[] = []
  const names: string[] = []
  for (const [path, { durable }] of contents) {
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size === undefined) continue
    const bytes = await lose(path, size, durable, how)
    if (bytes > 0) files.push({ path, bytes })
  }
  for (const entry of entries.toReversed()) {
    undo(entry)
    names.push(`${entry.type} ${entry.path}`)
  }
  let walBytes = 0
  for (const [path, size] of wals) {
    const now = statSync(path, { throwIfNoEntry: false })?.size ?? 0
    if (now <= size) continue
    truncateSync(path, size)
    walBytes += now - size
  }
  // SQLite makes its index again.
  for (const path of wals.keys()) rmSync(path.replace(/-wal$/, '-shm'), { force: true })
  return { files, names, walBytes }
}

async function lose(path: string, size: number, durable: readonly Range[], how: 'cut' | 'zero'): Promise<number> {
  const holes = holesIn(size, durable)
  const lost = holes.reduce((total, { from, to }) => total + to - from, 0)
  if (lost === 0) return 0
  if (how === 'cut') truncateSync(path, holes[0]?.from ?? size)
  else {
    const file = await open(path, 'r+')
    try {
      for (const { from, to } of holes) await file.write(Buffer.alloc(to - from), 0, to - from, from)
    } finally {
      await file.close()
    }
  }
  return lost
}

function holesIn(size: number, durable: readonly Range[]): Range[] {
  const holes: Range[] = []
  let at = 0
  for (const { from, to } of durable.toSorted((a, b) => a.from - b.from)) {
    if (from > at) holes.push({ from: at, to: Math.min(from, size) })
    at = Math.max(at, to)
  }
  if (at < size) holes.push({ from: at, to: size })
  return holes.filter(({ from, to }) => to > from)
}

function undo(entry: Entry): void {
  switch (entry.type) {
    case 'created':
      rmSync(entry.path, { recursive: true, force: true })
      return
    case 'removed':
      if (existsSync(entry.path)) return
      if (entry.copy === null) mkdirSync(entry.path, { recursive: true })
      else if (existsSync(dirname(entry.path))) linkSync(entry.copy, entry.path)
      return
    case 'renamed':
      if (existsSync(entry.path)) renameSync(entry.path, entry.from)
      if (entry.copy !== null) linkSync(entry.copy, entry.path)
      return
    default:
      return entry satisfies never
  }
}
