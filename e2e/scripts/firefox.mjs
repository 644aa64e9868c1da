import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { run, say, Stop } from './run.mjs'

const NAMES = ['firefox-esr', 'firefox']
const PLACES = ['/usr/bin', '/usr/local/bin', '/Applications/Firefox.app/Contents/MacOS']
const LIMIT_MS = 10 * 60_000

/** The path of an installed Firefox; null if `ensureFirefox` would install one. Changes nothing. */
export function findFirefox() {
  const asked = process.env.FIREFOX_PATH
  return asked !== undefined && asked !== '' ? asked : findInstalled()
}

/**
 * The path of a Firefox, which is installed from Debian's packages if there is none. If that is not possible, the
 * function prints the reason and returns null, and tests that need Firefox are skipped with the reason.
 */
export async function ensureFirefox() {
  const asked = process.env.FIREFOX_PATH
  if (asked !== undefined && asked !== '') {
    if (isExecutable(asked)) return asked
    throw new Stop(`FIREFOX_PATH names ${asked}, which is not an executable file.`)
  }
  const found = findInstalled()
  if (found !== null) return found
  say('No Firefox was found; installing one.')
  const failure = await installByApt()
  const installed = findInstalled()
  if (installed === null) say(`Firefox could not be installed (${failure}). Tests that need it are skipped.`)
  return installed
}

function findInstalled() {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== ''), ...PLACES]
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable) ?? null
}

async function installByApt() {
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return 'that needs root and apt-get'
  const apt = (...args) =>
    run('env', ['DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args], { limitMs: LIMIT_MS, quiet: true })
  await apt('update')
  const { code } = await apt('install', '-y', '--no-install-recommends', 'firefox-esr')
  return code === 0 ? 'it reported success, but no browser was found' : `it failed (${code})`
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
