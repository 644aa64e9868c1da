import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['tests-node/**/*.test.{ts,mjs}'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Tests that are concurrent wait most of their time.
    maxConcurrency: 50,
  },
})
