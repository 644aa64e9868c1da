import { fileURLToPath } from 'node:url'
import { defineConfig } from 'rolldown'
import { thirdPartyLicenses } from './third-party.mjs'
import { tusEngine } from './tus-engine.mjs'

const at = (path) => fileURLToPath(new URL(path, import.meta.url))

const licenses = thirdPartyLicenses(at('./THIRD-PARTY-LICENSES'))

export default defineConfig([
  {
    input: at('./src/index.ts'),
    // tus' core resolves badly in server rendering and edge bundles: it comes with us.
    external: ['@landfall/shared', 'idb-keyval', 'uuid', 'valibot'],
    platform: 'browser',
    plugins: [tusEngine, licenses],
    output: { dir: at('./dist'), format: 'esm', chunkFileNames: '[name].js', sourcemap: true },
  },
  {
    input: at('./src/worker.ts'),
    platform: 'browser',
    plugins: [licenses],
    // One file without imports, which runs as a classic worker and as a module.
    output: { file: at('./dist/worker.js'), format: 'iife', minify: true },
  },
])
