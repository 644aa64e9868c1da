import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** It downloads 50 MB and unpacks 190 MB, on a machine that also does other work. */
const INSTALL_MS = 100_000

export type NodeBinary =
  | { readonly outcome: 'found'; readonly path: string; readonly version: string }
  | { readonly outcome: 'missing'; readonly why: string }

/**
 * Finds or installs a Node of another major version, from the npm packages that contain its binaries for one platform
 * each. If the Node that runs this code has that version, it is used as it is.
 *
 * @param folder Where Node is installed. The function makes the folder, and the caller removes it.
 */
export async function nodeOf(major: number, folder: string): Promise<NodeBinary> {
  if (Number.parseInt(process.versions.node, 10) === major)
    return { outcome: 'found', path: process.execPath, version: process.version }
  const name = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
  try {
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, 'package.json'), '{ "private": true }')
    const options = ['--no-audit', '--no-fund', '--prefer-offline', '--ignore-scripts']
    await execute('npm', ['install', ...options, `${name}@${major}`], { cwd: folder, timeout: INSTALL_MS })
    const path = join(folder, 'node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
    const { stdout } = await execute(path, ['--version'])
    return { outcome: 'found', path, version: stdout.trim() }
  } catch (error) {
    const [reason] = (error as Error & { stderr?: string }).stderr?.trim().split('\n') ?? []
    return { outcome: 'missing', why: `${name}@${major} cannot be installed or run: ${reason ?? String(error)}` }
  }
}
