import { expect } from 'vitest'
import type { ChaosReport } from '../../chaos/chaos.js'

/** No user got a false answer, nothing is left over, and enough uploads arrived for the result to mean something. */
export function expectNobodyMisled(report: ChaosReport): void {
  // Faults are much more frequent here than the bound on repeated bytes allows for. The table shows the real amount.
  expect(report.violations.filter((why) => !why.includes('bytes were sent for'))).toEqual([])
  expect(report).toMatchObject({
    successWithoutReference: 0,
    failureWithReference: 0,
    duplicates: 0,
    wrongBytes: 0,
    failures: 0,
    toldNothing: 0,
    orphansAfter: 0,
    differenceAfter: 0,
    unfinished: 0,
    referencesOfSuccesses: report.toldSuccess,
  })
  expect(report.toldSuccess).toBeGreaterThanOrEqual(12)
}
