import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BrowserContext, chromium, type LaunchOptions } from '@playwright/test'

/** Where distributions put it. `npm test` looks further and sets `CHROMIUM_PATH`. */
const USUAL_PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

/** The browser that the tests use; undefined: Playwright's own, if it is installed. */
export const chromiumPath = (): string | undefined =>
  process.env['CHROMIUM_PATH'] ?? USUAL_PLACES.find((path) => existsSync(path))

/** How every browser of the tests is started. */
export function launchOptions(args: readonly string[] = []): LaunchOptions {
  const executablePath = chromiumPath()
  return {
    ...(executablePath === undefined ? {} : { executablePath }),
    // No sandbox: tests run as root in containers. No traffic of its own: requests are counted.
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', ...args],
  }
}

/** A browser with a profile that outlives it: closed or killed, and opened again on the same directory. */
export function openProfile(userDataDirectory: string, args: readonly string[] = []): Promise<BrowserContext> {
  return chromium.launchPersistentContext(userDataDirectory, launchOptions(args))
}

/**
 * `kill -9` of a whole browser: of every process that has this profile on its command line, and of their descendants.
 * Resolves with their ids when all are gone, so that the profile can be opened again.
 *
 * @throws when no such process runs, or one is left after 5 s
 */
export async function killBrowser(userDataDirectory: string): Promise<number[]> {
  const pids = familyOf(userDataDirectory)
  if (pids.length === 0) throw new Error(`no browser runs on ${userDataDirectory}`)
  for (const pid of pids) killOne(pid)
  for (let waitedMs = 0; waitedMs < 5000; waitedMs += 20) {
    if (familyOf(userDataDirectory).length === 0 && !pids.some(isAlive)) return pids
    await sleep(20)
  }
  throw new Error(`processes of ${userDataDirectory} are left after SIGKILL`)
}

/** The processes in which pages of that profile run, and such that wait for one. */
export const renderersOf = (userDataDirectory: string): number[] => {
  const family = new Set(familyOf(userDataDirectory))
  return processEntries()
    .filter(({ pid, commandLine }) => family.has(pid) && isRenderer(commandLine.join(' ')))
    .map(({ pid }) => pid)
}

/** Not of the browser's own pages and extensions. */
const isRenderer = (commandLine: string): boolean =>
  commandLine.includes('--type=renderer') && !/--(top-chrome-webui|extension-process)/.test(commandLine)

interface ProcessEntry {
  readonly pid: number
  readonly parent: number
  readonly commandLine: readonly string[]
}

function familyOf(userDataDirectory: string): number[] {
  const entries = processEntries()
  const family = new Set(
    entries
      .filter(({ commandLine }) => commandLine.includes(`--user-data-dir=${userDataDirectory}`))
      .map(({ pid }) => pid),
  )
  for (let grown = true; grown;) {
    const children = entries.filter(({ pid, parent }) => family.has(parent) && !family.has(pid))
    for (const { pid } of children) family.add(pid)
    grown = children.length > 0
  }
  family.delete(process.pid)
  return [...family]
}

function processEntries(): ProcessEntry[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        if (state === 'Z') return []
        const commandLine = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
        return [{ pid: Number(name), parent: Number(parent), commandLine }]
      } catch {
        return [] // it ended while we looked
      }
    })
}

function isAlive(pid: number): boolean {
  return processEntries().some((entry) => entry.pid === pid)
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it was faster
  }
}
