import { defineConfig } from '@playwright/test'
import { launchOptions } from './ground/chromium.js'

const CROWDS = '**/many.spec.ts'

export default defineConfig({
  testDir: 'tests/browser',
  outputDir: 'test-results/playwright',
  // No test is repeated: a test that passes only sometimes has found a fault.
  retries: 0,
  fullyParallel: true,
  workers: 2,
  timeout: 120_000,
  projects: [
    { name: 'stories', testIgnore: CROWDS },
    // These tests run after the others and one at a time. They test the server, and twenty browsers use a small machine
    // completely.
    { name: 'crowds', testMatch: CROWDS, workers: 1, dependencies: ['stories'] },
  ],
  use: { browserName: 'chromium', launchOptions: launchOptions(), trace: 'off' },
})
