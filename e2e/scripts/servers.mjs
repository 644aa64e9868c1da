import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { root, run, say } from './run.mjs'

/**
 * Programs that tests start, and the Debian packages that contain them. If Debian's PostgreSQL is not installed, an npm
 * package provides it.
 */
const WANTED = [
  ['nginx', 'nginx-light'],
  ['pgbouncer', 'pgbouncer'],
  // This is no server. It sets the clocks of servers.
  ['faketime', 'faketime'],
]
const GATEWAY = join(root, 'e2e', 'scripts', 's3-up')
const LIMIT_MS = 5 * 60_000
/** What `s3-up` prints when it may not install: the missing programs, and the Debian packages that contain them. */
const MISSING_GATEWAY = /missing programs: (.*) \(Debian packages: (.*)\)/

/**
 * The programs that tests start. `packages` are the Debian packages that would be installed for a program, and are
 * empty if it is installed already. `reason` says why they cannot be installed here. Changes nothing.
 */
export async function findServers() {
  const programs = WANTED.map(([program, debianPackage]) => ({
    name: program,
    packages: isThere(program) ? [] : [debianPackage],
    reason: whyNoServers(),
  }))
  const { code, output } = await run(GATEWAY, ['install'], { quiet: true, env: { S3_UP_NO_INSTALL: '1' } })
  const packages = code === 0 ? [] : (MISSING_GATEWAY.exec(output)?.[2]?.split(' ') ?? ['Ceph'])
  return [...programs, { name: 'S3 gateway (Ceph)', packages, reason: whyNoApt() }]
}

/** The reason why apt-get cannot install here; null if it can. Changes nothing. */
export const whyNoApt = () =>
  process.getuid?.() === 0 && existsSync('/usr/bin/apt-get') ? null : 'that needs root and apt-get'

/** The same for Debian packages of servers, because systemd would start these as services. */
const whyNoServers = () => whyNoApt() ?? (existsSync('/run/systemd/system') ? 'it would start them as services' : null)

/**
 * Installs the servers that tests start, before any test runs. It installs one after the other, because apt allows only
 * one at a time. If a server cannot be installed, the function prints the reason, and tests that need the server are
 * skipped with the reason.
 */
export async function ensureServers() {
  const missing = WANTED.filter(([program]) => !isThere(program)).map(([, name]) => name)
  if (missing.length > 0) await installed(missing.join(', '), () => byApt(missing))
  await installed('the S3 gateway (Ceph)', async () => (await run(GATEWAY, ['install'], { limitMs: LIMIT_MS })).code)
}

async function byApt(packages) {
  const reason = whyNoServers()
  if (reason !== null) return reason
  const apt = (...args) =>
    run('env', ['DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args], { limitMs: LIMIT_MS, quiet: true })
  await apt('update')
  return (await apt('install', '-y', '--no-install-recommends', ...packages)).code
}

async function installed(what, install) {
  const failure = await install()
  if (failure !== 0) say(`Could not install ${what} (${failure}). Tests that need it are skipped.`)
}

const isThere = (program) =>
  [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'].some((folder) =>
    existsSync(join(folder, program)),
  )
