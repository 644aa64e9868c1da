import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

/** The folders of the pages, by the name of their folder in `build/`: `vite build --mode sweep`. */
const PAGES: Readonly<Record<string, string>> = { page: 'demo/page', sweep: 'clients/pages/swept' }

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig(({ mode }) => ({
  root: here(`./${PAGES[mode]}`),
  build: { outDir: here(`./build/${mode}`), emptyOutDir: true, target: 'es2022', assetsInlineLimit: 0 },
}))
