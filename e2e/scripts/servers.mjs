import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { root, run, say } from './run.mjs'

/** Programs that tests start, and the Debian packages that hold them. PostgreSQL comes with npm where Debian's is not there. */
const WANTED = [
  ['nginx', 'nginx-light'],
  ['pgbouncer', 'pgbouncer'],
  // No server: it sets their clocks.
  ['faketime', 'faketime'],
]
const GATEWAY = join(root, 'e2e', 'scripts', 's3-up')
const LIMIT_MS = 5 * 60_000
/** What `s3-up` says when it may not install: the programs, and the Debian packages that hold them. */
const MISSING_GATEWAY = /missing programs: (.*) \(Debian packages: (.*)\)/

/**
 * The programs that tests start. Each has the Debian packages that would be installed for it, none where it is there
 * already, and the reason when that is not possible here. Changes nothing.
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

/** Why apt-get cannot install here; null when it can. Changes nothing. */
export const whyNoApt = () =>
  process.getuid?.() === 0 && existsSync('/usr/bin/apt-get') ? null : 'root and apt-get are needed for that'

/** The same for Debian packages of servers, which systemd would start as services. */
const whyNoServers = () => whyNoApt() ?? (existsSync('/run/systemd/system') ? 'it would start them as services' : null)

/**
 * Installs the servers that tests start, before any of them: one after the other, because apt lets nobody else in. What
 * cannot be installed is said; whoever needs it is then skipped, with the reason.
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
  if (failure !== 0) say(`Not installed: ${what} (${failure}). Tests that need it are skipped.`)
}

const isThere = (program) =>
  [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'].some((folder) =>
    existsSync(join(folder, program)),
  )
