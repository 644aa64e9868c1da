import { defineConfig } from '@playwright/test'
import { launchOptions } from './ground/chromium.js'

const CROWDS = '**/many.spec.ts'

export default defineConfig({
  testDir: 'tests/browser',
  outputDir: 'test-results/playwright',
  // Nothing is tried again: a test that passes only sometimes has found something.
  retries: 0,
  fullyParallel: true,
  workers: 2,
  timeout: 120_000,
  projects: [
    { name: 'stories', testIgnore: CROWDS },
    // Afterwards and one by one: what they look at is the server, and twenty browsers fill a small machine.
    { name: 'crowds', testMatch: CROWDS, workers: 1, dependencies: ['stories'] },
  ],
  use: { browserName: 'chromium', launchOptions: launchOptions(), trace: 'off' },
})
