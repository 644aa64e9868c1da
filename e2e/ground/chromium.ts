import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BrowserContext, chromium, type LaunchOptions } from '@playwright/test'

/** Where Linux distributions install it. `npm test` searches further and sets `CHROMIUM_PATH`. */
const USUAL_PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

/** The browser that the tests use. Undefined means Playwright's own browser, if it is installed. */
export const chromiumPath = (): string | undefined =>
  process.env['CHROMIUM_PATH'] ?? USUAL_PLACES.find((path) => existsSync(path))

/** The options with which the tests start every browser. */
export function launchOptions(args: readonly string[] = []): LaunchOptions {
  const executablePath = chromiumPath()
  return {
    ...(executablePath === undefined ? {} : { executablePath }),
    // There is no sandbox, because tests run as root in containers. The browser sends no requests of its own, because
    // tests count requests.
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', ...args],
  }
}

/**
 * Opens a browser on a profile that outlives it. A test can close or kill it, and open it again on the same directory.
 */
export function openProfile(userDataDirectory: string, args: readonly string[] = []): Promise<BrowserContext> {
  return chromium.launchPersistentContext(userDataDirectory, launchOptions(args))
}

/**
 * Kills a whole browser as `kill -9` does: every process that has this profile on its command line, and their
 * descendants. Resolves with the ids of the processes when all are gone, so that the profile can be opened again.
 *
 * @throws when no such process runs, or when one still runs after 5 s
 */
export async function killBrowser(userDataDirectory: string): Promise<number[]> {
  const pids = familyOf(userDataDirectory)
  if (pids.length === 0) throw new Error(`no browser runs on ${userDataDirectory}`)
  for (const pid of pids) killOne(pid)
  for (let waitedMs = 0; waitedMs < 5000; waitedMs += 20) {
    if (familyOf(userDataDirectory).length === 0 && !pids.some(isAlive)) return pids
    await sleep(20)
  }
  throw new Error(`processes of ${userDataDirectory} still run after SIGKILL`)
}

/** The processes in which pages of that profile run, and the spare processes that wait for a page. */
export const renderersOf = (userDataDirectory: string): number[] => {
  const family = new Set(familyOf(userDataDirectory))
  return processEntries()
    .filter(({ pid, commandLine }) => family.has(pid) && isRenderer(commandLine.join(' ')))
    .map(({ pid }) => pid)
}

/** Excludes the processes of the browser's own pages and extensions. */
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
        return [] // The process ended while its files were read.
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
    // The process had ended already.
  }
}
