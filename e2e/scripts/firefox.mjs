import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { run, say, Stop } from './run.mjs'

const NAMES = ['firefox-esr', 'firefox']
const PLACES = ['/usr/bin', '/usr/local/bin', '/Applications/Firefox.app/Contents/MacOS']
const LIMIT_MS = 10 * 60_000

/** The path of the Firefox that is there already; null when one would be installed. Changes nothing. */
export function findFirefox() {
  const asked = process.env.FIREFOX_PATH
  return asked !== undefined && asked !== '' ? asked : findInstalled()
}

/**
 * The path of a Firefox; installed from Debian's packages if there is none. Null where that is not possible, which is
 * said: what needs it is then skipped, with the reason.
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
  if (installed === null) say(`Not installed: Firefox (${failure}). Tests that need it are skipped.`)
  return installed
}

function findInstalled() {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== ''), ...PLACES]
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable) ?? null
}

async function installByApt() {
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return 'root and apt-get are needed for that'
  const apt = (...args) =>
    run('env', ['DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args], { limitMs: LIMIT_MS, quiet: true })
  await apt('update')
  const { code } = await apt('install', '-y', '--no-install-recommends', 'firefox-esr')
  return code === 0 ? 'it reported success, but no browser is there' : `it failed (${code})`
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
