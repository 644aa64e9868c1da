import { defineConfig } from 'vitest/config'
import { quickLane } from '../e2e/scripts/quick-lane.js'
import { tusEngine } from './tus-engine.mjs'

export default defineConfig({
  plugins: [tusEngine],
  // tus' core is ESM in a package that does not say so: Node cannot load it as it stands.
  test: {
    include: ['test/**/*.test.ts'],
    server: { deps: { inline: ['tus-js-client'] } },
    testTimeout: 20_000,
    ...quickLane(import.meta.dirname, 'test'),
  },
})
