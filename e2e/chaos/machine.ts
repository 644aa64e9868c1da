import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryDirectory } from '../ground/files.js'

const execute = promisify(execFile)

/** What some faults need from the machine. */
export type Means = 'small disk' | 'permissions' | 'set clock'

/** What this machine can do. A means that it does not have is in `missing`, with the reason. */
export interface Machine {
  readonly missing: ReadonlyMap<Means, string>
  /** Words before the server's command that take away root's right to ignore permissions. */
  readonly prefix: readonly string[]
  /** The library that is preloaded into the server to set its clock; null if the clock cannot be set. */
  readonly faketime: string | null
}

const isRoot = process.getuid?.() === 0
/** Runs a command without the capabilities by which root ignores permissions. */
const WITHOUT_OVERRIDE = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search', '--']

export async function lookAtMachine(): Promise<Machine> {
  const missing = new Map<Means, string>()
  const prefix = isRoot ? WITHOUT_OVERRIDE : []
  const disk = await triedMount()
  if (disk !== null) missing.set('small disk', disk)
  const permissions = await triedPermissions(prefix)
  if (permissions !== null) missing.set('permissions', permissions)
  const faketime = findFaketime()
  if (faketime === null) missing.set('set clock', 'libfaketime is not installed (apt-get install faketime)')
  return { missing, prefix: permissions === null ? prefix : [], faketime }
}

async function triedMount(): Promise<string | null> {
  if (!isRoot) return 'only root may mount a tmpfs'
  const directory = await temporaryDirectory('landfall-chaos-try-')
  try {
    await execute('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'landfall-chaos-try', directory.path])
    await execute('umount', [directory.path])
    return null
  } catch {
    return 'a tmpfs cannot be mounted here'
  } finally {
    await directory.remove()
  }
}

async function triedPermissions([command, ...args]: readonly string[]): Promise<string | null> {
  if (command === undefined) return null
  const directory = await temporaryDirectory('landfall-chaos-try-')
  try {
    await execute('chmod', ['000', directory.path])
    const listed = await execute(command, [...args, 'ls', directory.path]).then(
      () => true,
      () => false,
    )
    const starts = await execute(command, [...args, 'true']).then(
      () => true,
      () => false,
    )
    return !starts
      ? 'setpriv is not there, and root ignores permissions'
      : listed
        ? 'permissions are ignored here'
        : null
  } finally {
    await directory.remove()
  }
}

/** The path at which Debian installs the library, for any architecture. */
function findFaketime(): string | null {
  for (const lib of ['/usr/lib', '/usr/lib64']) {
    if (!existsSync(lib)) continue
    for (const folder of ['.', ...readdirSync(lib)]) {
      const path = join(lib, folder, 'faketime', 'libfaketimeMT.so.1')
      if (existsSync(path)) return path
    }
  }
  return null
}
