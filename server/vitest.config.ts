import { defineConfig } from 'vitest/config'
import { isQuick, quickLane } from '../e2e/scripts/quick-lane.js'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 20_000,
    // Against hanging only: a database server with a hundred databases takes its time to go on a busy machine.
    hookTimeout: 60_000,
    pool: 'forks',
    globalSetup: isQuick ? [] : ['test/s3-setup.ts'],
    ...quickLane(import.meta.dirname, 'test'),
  },
})
