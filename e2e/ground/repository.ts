import { fileURLToPath } from 'node:url'

/**
 * The repository's folder, with a slash at its end. It is two levels above `e2e/ground/` and three above
 * `e2e/dist/ground/`.
 */
export const repository = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '../../../' : '../../', import.meta.url),
)

/** The path of a compiled program of this package. `path` is relative to `e2e/` and has no extension. */
export const compiled = (path: string): string => `${repository}e2e/dist/${path}.js`

/** The folder of a page that the build has made, by its name in `e2e/build/`. */
export const builtPage = (name: string): string => `${repository}e2e/build/${name}`
