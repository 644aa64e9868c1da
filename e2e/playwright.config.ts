import { defineConfig } from '@playwright/test'
import { launchOptions } from './src/chromium.js'

export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results/playwright',
  // Nothing is tried again: a test that passes only sometimes has found something.
  retries: 0,
  fullyParallel: true,
  workers: 2,
  timeout: 120_000,
  use: { browserName: 'chromium', launchOptions: launchOptions(), trace: 'off' },
})
