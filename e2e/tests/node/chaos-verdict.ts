import { expect } from 'vitest'
import type { ChaosReport } from '../../chaos/chaos.js'

/** Nobody was told what is not so, nothing is left over, and enough came through for that to say something. */
export function expectNobodyMisled(report: ChaosReport): void {
  // Faults come several times as often here as the bound on what is sent again allows for; the table says how much it was.
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
