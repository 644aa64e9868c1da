import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { bin, run, say, Stop } from './run.mjs'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome', 'microsoft-edge']
const PLACES = [
  '/usr/bin',
  '/usr/local/bin',
  '/snap/bin',
  '/opt/google/chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
]
/** A download that hangs must not make the tests hang. */
const DOWNLOAD_LIMIT_MS = 5 * 60_000
const APT_LIMIT_MS = 10 * 60_000

/** The path of an installed Chromium; null if `ensureBrowser` would install one. Changes nothing. */
export async function findBrowser() {
  const asked = process.env.CHROMIUM_PATH
  return asked !== undefined && asked !== '' ? asked : (findInstalled() ?? (await findOfPlaywright()))
}

/**
 * The path of a Chromium, which is installed if there is none. @throws Stop if that is not possible; the message says
 * what to do
 */
export async function ensureBrowser() {
  const asked = process.env.CHROMIUM_PATH
  if (asked !== undefined && asked !== '') {
    if (isExecutable(asked)) return asked
    throw new Stop(`CHROMIUM_PATH names ${asked}, which is not an executable file.`)
  }
  const found = findInstalled() ?? (await findOfPlaywright())
  if (found !== null) return found

  say('No Chromium was found; installing one.')
  const attempts = [
    { name: 'playwright install chromium', attempt: installByPlaywright },
    { name: 'apt-get install chromium', attempt: installByApt },
  ]
  const reasons = []
  for (const { name, attempt } of attempts) {
    const reason = await attempt()
    const installed = findInstalled() ?? (await findOfPlaywright())
    if (installed !== null) return installed
    const line = `  ${name}: ${reason ?? 'it reported success, but no browser was found'}`
    reasons.push(line)
    say(line)
  }
  throw new Stop(
    [
      'The tests need Chromium (or Google Chrome), and none could be installed:',
      ...reasons,
      'Install one and run this again, or name it: CHROMIUM_PATH=/path/to/chromium npm test',
    ].join('\n'),
  )
}

function findInstalled() {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== ''), ...PLACES]
  const candidates = NAMES.flatMap((name) => folders.map((folder) => join(folder, name)))
  return [...candidates, ...PLACES].find(isExecutable) ?? null
}

/**
 * The path at which Playwright would look for its own browser. A separate process asks Playwright, because Playwright
 * takes a while to load.
 */
async function findOfPlaywright() {
  const script = `process.stdout.write(require('playwright-core').chromium.executablePath())`
  const { code, output } = await run(process.execPath, ['-e', script], { quiet: true })
  return code === 0 && existsSync(output) ? output : null
}

async function installByPlaywright() {
  // Dependencies are installed only if that asks for no password. sudo would read it from the terminal, not from
  // standard input.
  const withDeps = process.platform === 'linux' && (await rootPrefix()) !== null ? ['--with-deps'] : []
  const { code } = await bin('playwright', ['install', ...withDeps, 'chromium'], {
    limitMs: DOWNLOAD_LIMIT_MS,
    env: { PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT: '20000', DEBIAN_FRONTEND: 'noninteractive' },
  })
  return failure(code)
}

async function installByApt() {
  if (!existsSync('/usr/bin/apt-get')) return 'this system has no apt-get'
  const prefix = await rootPrefix()
  if (prefix === null) return 'it needs root, or sudo without a password'
  const apt = (...args) => {
    const [command, ...rest] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args]
    return run(command, rest, { limitMs: APT_LIMIT_MS })
  }
  const updated = await apt('update')
  if (updated.code !== 0) return `apt-get update: ${failure(updated.code)}`
  const { code } = await apt('install', '-y', '--no-install-recommends', 'chromium')
  return failure(code)
}

/** What must precede a command so that it runs as root without a password; null if that is not possible. */
async function rootPrefix() {
  if (process.getuid?.() === 0) return []
  const { code } = await run('sudo', ['-n', 'true'], { quiet: true })
  return code === 0 ? ['sudo', '-n'] : null
}

const failure = (code) => (code === 0 ? null : code === 124 ? 'it took too long' : `it failed (${code})`)

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
