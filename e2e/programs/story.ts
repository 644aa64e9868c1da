import { openPlace, type Place } from '../ground/place.js'
import { until } from '../ground/patience.js'
import { nodeServer, startProcess } from '../ground/processes.js'
import { builtPage, compiled } from '../ground/repository.js'
import { openReader } from '../truth/reader.js'
import type { Stored } from '../truth/stored.js'
import type { ApplicationSettings } from './application.js'
import type { StoryReport, StorySettings } from './story-app.js'

export type Truth = Stored & { readonly rows: NonNullable<Stored['rows']> }

/**
 * An application that embeds Landfall, as a process on a directory behind a proxy, and the truth about it at the end.
 */
export interface Story extends Place {
  /** Reads its database and its disk without asking the application. */
  truth(): Promise<Truth>
  /**
   * Resolves with the first truth for which the predicate holds. @throws after `withinMs` (default 30,000), with the
   * truth at that time.
   */
  until(holds: (truth: Truth) => boolean, withinMs?: number): Promise<Truth>
  /** Kills the application as `kill -9` does. Until `restart` it cannot be reached. */
  kill(): Promise<void>
  /** Another process takes SQLite's write lock. Until `release`, no writing transaction can begin. */
  takeDatabaseAway(): Promise<{ release(): Promise<unknown> }>
}

async function open(program: (directory: string) => readonly [string, object], database: string): Promise<Story> {
  const place = await openPlace(({ directory }) => {
    const [name, settings] = program(directory)
    return nodeServer(compiled(`programs/${name}`), [JSON.stringify(settings)])
  })
  const reader = openReader(place.directory, database)
  place.defer(reader.end)
  async function truth(): Promise<Truth> {
    const stored = await reader.read()
    return { ...stored, rows: stored.rows ?? [] }
  }
  return {
    ...place,
    truth,
    async until(holds, withinMs = 30_000) {
      let last: Truth | null = null
      const holding = async (): Promise<Truth | false> => holds((last = await truth())) && last
      return until(holding, withinMs, () => `${String(holds)}\n${JSON.stringify(last, null, 1)}`)
    },
    kill: async () => void (await place.server.kill('SIGKILL')),
    async takeDatabaseAway() {
      const holder = await holdDatabase(`${place.directory}/${database}`)
      return { release: () => holder.kill('SIGKILL') }
    },
  }
}

/** A process that holds the database's write lock until it is killed. */
export const holdDatabase = (file: string) =>
  startProcess({ ...nodeServer(compiled('programs/hold-database'), [file]), ready: /locked/ })

/** The demo, with hooks that wait, fail or do what a hook must not do. */
export async function startStory(settings: Omit<StorySettings, 'directory' | 'page'> = {}) {
  const page = builtPage('page')
  const story = await open((directory) => ['story-app', { ...settings, directory, page }], 'app.db')
  return {
    ...story,
    /** Returns what the application saw, and stops the application's own writes. */
    async report(): Promise<StoryReport> {
      return (await (await fetch(`${story.proxy.origin}/-/story`)).json()) as StoryReport
    },
  }
}
export type DemoStory = Awaited<ReturnType<typeof startStory>>

/** The application, for clients that do not need our page. */
export const startApplication = (settings: Omit<ApplicationSettings, 'directory'>): Promise<Story> =>
  open((directory) => ['application', { ...settings, directory }], 'landfall.db')
