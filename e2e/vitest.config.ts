import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import { quickLane } from './scripts/quick-lane.js'

/**
 * `stock-slow` waits for minutes, so it begins first. `stock-restart` needs a machine with little load, so it is last.
 */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number =>
      moduleId.includes('stock-slow') ? 0 : moduleId.includes('stock-restart') ? 2 : 1
    const byDuration = await super.sort(files) // oxlint-disable-line no-array-sort -- it is the sequencer's
    return byDuration.toSorted((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    include: ['tests/node/**/*.test.{ts,mjs}'],
    // This limit is only for tests that hang. On a busy machine a process takes many seconds to start.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two files run at the same time, because one of them mostly waits.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    // Concurrent tests wait most of their time.
    maxConcurrency: 50,
    ...quickLane(import.meta.dirname, 'tests/node'),
  },
})
