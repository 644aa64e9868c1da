import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const INSTALL_LIMIT_MS = 120_000

export type Found = { readonly path: string } | { readonly missing: string }

/** A program of this machine; installed from Debian's package where that can be done without starting a service. */
export function findProgram(name: string, debianPackage: string): Found {
  const there = () =>
    [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
      .map((folder) => join(folder, name))
      .find((path) => existsSync(path))
  const path = there()
  if (path !== undefined) return { path }
  if (!existsSync('/usr/bin/apt-get')) return { missing: `there is no ${name}, and no apt-get to install it` }
  if (process.getuid?.() !== 0) return { missing: `there is no ${name}, and only root could install it` }
  if (existsSync('/run/systemd/system'))
    return { missing: `there is no ${name}, and installing it would start a service` }
  const apt = (...args: string[]): number | null =>
    // Several tests may want to install something at once.
    spawnSync('apt-get', ['-o', 'DPkg::Lock::Timeout=100', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      timeout: INSTALL_LIMIT_MS,
    }).status
  const install = (): number | null => apt('install', '-y', '--no-install-recommends', debianPackage)
  let status = install()
  // The list of packages may be old, or not there yet.
  if (status !== 0 && apt('update') === 0) status = install()
  const installed = there()
  return installed === undefined
    ? { missing: `there is no ${name}, and apt-get install failed (${String(status)})` }
    : { path: installed }
}
