import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  root: here('./page'),
  build: { outDir: here('../build/page'), emptyOutDir: true, target: 'es2022', assetsInlineLimit: 0 },
})
