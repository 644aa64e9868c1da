import { defineConfig } from 'vitest/config'
import { quickLane } from '../e2e/scripts/quick-lane.js'

export default defineConfig({
  test: { include: ['test/**/*.test.ts'], ...quickLane(import.meta.dirname, 'test') },
})
