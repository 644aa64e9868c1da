import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureBrowser, findBrowser } from './browser.mjs'
import { ensureFirefox, findFirefox } from './firefox.mjs'
import { main, npm, root, say, Stop } from './run.mjs'
import { ensureServers, findServers, whyNoApt } from './servers.mjs'

/** Vite 8 and the packages' `engines` need it. */
const NODE_AT_LEAST = [20, 19]
/** Older versions remove optional packages of other platforms from the lock file. */
const NPM_AT_LEAST = [10, 0]
const STAMP = join(root, 'node_modules', '.landfall-setup')

/**
 * Makes a new clone ready. It checks Node and npm, and installs packages. If asked, it also installs the browsers and
 * the servers that tests start. It takes less than a second if there is nothing to do. Returns the paths of the
 * browsers, each of them null if there is none.
 */
export async function setup({ browser, firefox = false, servers = false }) {
  checkNode()
  await checkNpm()
  await ensurePackages()
  if (servers) await ensureServers()
  return { chromium: browser ? await ensureBrowser() : null, firefox: firefox ? await ensureFirefox() : null }
}

/**
 * Prints, before anything is changed, what a command uses, what of it is installed already, and what will be installed
 * where.
 *
 * @param command The command as the user typed it.
 * @param temporary What its tests install into temporary folders, which they remove again.
 */
export async function announce(command, { browser, firefox = false, servers = false, temporary = [] }) {
  const isReady = arePackagesInstalled()
  const rows = [['npm packages', isReady ? 'there' : 'WILL BE INSTALLED into node_modules (npm ci)']]
  if (browser) {
    // Playwright knows where its own browser is, and it is one of the npm packages.
    const path = await findBrowser()
    rows.push(['Chromium', path ?? "WILL BE INSTALLED (Playwright's own, else the Debian package chromium)"])
  }
  const byApt = (packages, reason) =>
    reason === null
      ? `WILL BE INSTALLED (apt-get install ${packages.join(' ')})`
      : `missing, and cannot be installed: ${reason}. Its tests are skipped. (${packages.join(' ')})`
  if (firefox) rows.push(['Firefox', findFirefox() ?? byApt(['firefox-esr'], whyNoApt())])
  if (servers)
    for (const { name, packages, reason } of await findServers())
      rows.push([name, packages.length === 0 ? 'there' : byApt(packages, reason)])
  for (const what of temporary) rows.push(['while it runs', `${what}, into a temporary folder that is removed again`])
  say(`${command} uses:\n${rows.map(([name, state]) => `  ${name.padEnd(19)} ${state}`).join('\n')}\n`)
}

function checkNode() {
  if (isAtLeast(process.versions.node, NODE_AT_LEAST)) return
  throw new Stop(
    `Landfall needs Node ${NODE_AT_LEAST.join('.')} or newer; this is ${process.versions.node} (${process.execPath}).`,
  )
}

async function checkNpm() {
  // npm sets this variable when it runs this script. Asking npm itself takes a third of a second.
  const agent = /\bnpm\/(\d+\.\d+)/.exec(process.env.npm_config_user_agent ?? '')
  const version = agent?.[1] ?? (await npm(['--version'], { quiet: true })).output.trim()
  if (isAtLeast(version, NPM_AT_LEAST)) return
  throw new Stop(
    `Landfall needs npm ${NPM_AT_LEAST.join('.')} or newer; this is ${version || 'none'}. To update it: npm install -g npm@11`,
  )
}

const isAtLeast = (version, [major, minor]) => {
  const [a = 0, b = 0] = version.split('.').map(Number)
  return a > major || (a === major && b >= minor)
}

const readLock = () => readFileSync(join(root, 'package-lock.json'), 'utf8')
const stampOf = (lock) => createHash('sha256').update(`${process.platform} ${process.arch}\n${lock}`).digest('hex')
const isStamped = (lock) => existsSync(STAMP) && readFileSync(STAMP, 'utf8') === stampOf(lock)

function arePackagesInstalled() {
  const lock = readLock()
  return isStamped(lock) || isInstalled(JSON.parse(lock))
}

async function ensurePackages() {
  const lock = readLock()
  if (isStamped(lock)) return
  if (!isInstalled(JSON.parse(lock))) {
    say('Installing packages (npm ci).')
    rmSync(STAMP, { force: true })
    const { code } = await npm(['ci', '--no-audit', '--no-fund'])
    if (code !== 0) throw new Stop(`npm ci failed (${code}); see above.`)
  }
  writeFileSync(STAMP, stampOf(lock))
}

/**
 * Whether the packages that npm noted at the end of its last install are those of the lock file. This also holds after
 * `npm install`.
 */
function isInstalled(lock) {
  const path = join(root, 'node_modules', '.package-lock.json')
  if (!existsSync(path)) return false
  const installed = JSON.parse(readFileSync(path, 'utf8')).packages ?? {}
  return Object.entries(lock.packages).every(([name, entry]) => {
    if (!name.includes('node_modules/')) return true
    const found = installed[name]
    if (found === undefined) return entry.optional === true || entry.devOptional === true || entry.peer === true
    // `resolved` is not compared, because npm may leave the registry's address out of a lock file.
    return found.version === entry.version && found.integrity === entry.integrity && existsSync(join(root, name))
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const { chromium } = await setup({ browser: process.argv.includes('--browser') })
    say(chromium === null ? 'Ready.' : `Ready; the browser is ${chromium}`)
    return 0
  })
}
