import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

export type Found = { readonly path: string } | { readonly missing: string }

/** A program of this machine. `npm test` installs it if possible. */
export function findProgram(name: string, debianPackage: string): Found {
  const path = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
    .map((folder) => join(folder, name))
    .find((one) => existsSync(one))
  return path === undefined ? { missing: `there is no ${name}: apt-get install ${debianPackage}` } : { path }
}
