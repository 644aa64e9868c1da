import { fileURLToPath } from 'node:url'

/** The repository's folder, with a slash at its end: two levels above `e2e/ground/`, three above `e2e/dist/ground/`. */
export const repository = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '../../../' : '../../', import.meta.url),
)

/** A compiled program of this package, by its path in `e2e/`, without an ending. */
export const compiled = (path: string): string => `${repository}e2e/dist/${path}.js`

/** The folder of a page that the build has made, by its name in `e2e/build/`. */
export const builtPage = (name: string): string => `${repository}e2e/build/${name}`
