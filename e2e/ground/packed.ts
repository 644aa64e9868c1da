import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readdir, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

const execute = promisify(execFile)

export const PACKAGES = ['shared', 'server', 'client'] as const
export type PackageName = (typeof PACKAGES)[number]

/** Runs `npm pack` on one of the packages as it is built now, and returns the path of the tarball. */
export async function pack(repository: string, name: PackageName, destination: string): Promise<string> {
  await mkdir(destination, { recursive: true })
  await execute('npm', ['pack', '--silent', '--pack-destination', destination], { cwd: join(repository, name) })
  const found = (await readdir(destination)).find((file) => file.startsWith(`landfall-${name}-`))
  if (found === undefined) throw new Error(`npm pack made no tarball of ${name}`)
  return join(destination, found)
}

/**
 * Installs tarballs into a project as npm would, without a registry. Our packages are unpacked, and their dependencies
 * are linked from the repository's own `node_modules`. As in a user's project, a package that is not a dependency of
 * what is installed cannot be imported.
 */
export async function install(repository: string, project: string, tarballs: readonly string[]): Promise<void> {
  const modules = join(project, 'node_modules')
  const needed = new Set<string>()
  for (const tarball of tarballs) {
    const name = /landfall-([a-z]+)-[^/]*\.tgz$/.exec(tarball)?.[1] ?? ''
    const folder = join(modules, '@landfall', name)
    await mkdir(folder, { recursive: true })
    await execute('tar', ['-xzf', tarball, '-C', folder, '--strip-components=1'])
    for (const dependency of dependenciesOf(folder)) needed.add(dependency)
  }
  await link(repository, project, needed)
}

/** Links packages as if the project had installed them itself. */
export async function link(repository: string, project: string, names: Iterable<string>): Promise<void> {
  for (const name of names) {
    const path = join(project, 'node_modules', name)
    if (existsSync(path)) continue
    await mkdir(dirname(path), { recursive: true })
    const folder = join(repository, 'node_modules', name)
    await symlink(folder, path)
    for (const [command, script] of commandsOf(name, folder)) {
      const bin = join(project, 'node_modules/.bin', command)
      await mkdir(dirname(bin), { recursive: true })
      if (!existsSync(bin)) await symlink(join(folder, script), bin)
    }
  }
}

/** The commands that npm would put into `.bin`. */
function commandsOf(name: string, folder: string): [command: string, script: string][] {
  const manifest: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const bin: unknown = typeof manifest === 'object' && manifest !== null && Reflect.get(manifest, 'bin')
  if (typeof bin === 'string') return [[name.replace(/^@[^/]*\//, ''), bin]]
  return typeof bin === 'object' && bin !== null
    ? Object.entries(bin).map(([command, script]) => [command, String(script)])
    : []
}

function dependenciesOf(folder: string): string[] {
  const manifest: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const dependencies: unknown =
    typeof manifest === 'object' && manifest !== null && Reflect.get(manifest, 'dependencies')
  return typeof dependencies === 'object' && dependencies !== null ? Object.keys(dependencies) : []
}

/** The paths of the files in a tarball, without the leading `package/`. */
export async function contents(tarball: string): Promise<string[]> {
  const { stdout } = await execute('tar', ['-tzf', tarball])
  return stdout
    .trimEnd()
    .split('\n')
    .map((path) => path.replace(/^package\//, ''))
}
