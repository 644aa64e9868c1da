import { fileURLToPath } from 'node:url'

/** The repository's folder, with a slash at its end; from `e2e/ground/` or from `e2e/dist/ground/`. */
export const repository = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '../../../' : '../../', import.meta.url),
)
