import { readFileSync, rmSync } from 'node:fs'
import { relative } from 'node:path'
import { root } from './run.mjs'

/** The result of a step: a count, and one line for each test that failed or was skipped. */
export const outcome = (passed, failures, skips = []) => ({ passed, failures, skips })

/** The result of a step that counts as one test. It has passed if its command ended with 0. */
export const ofCommand = (name, code) =>
  code === 0 ? outcome(1, []) : outcome(0, [`${name}: ${code === 124 ? 'took too long' : `exit status ${code}`}`])

export const forget = (path) => rmSync(path, { force: true })

/** Reads a report; null if it was not written because the run crashed. */
function read(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return null
  }
}

/**
 * Counts a vitest JSON report. A file that could not be loaded counts as one failure, and so does an error outside of
 * any test.
 */
export function ofVitest(name, path, code, filtered) {
  const report = read(path)
  if (report === null) return outcome(0, [`${name}: crashed (exit status ${code}), no report was written`])
  const tests = report.testResults.flatMap((file) =>
    file.assertionResults.map((test) => ({ ...test, file: file.name })),
  )
  const counted = (status) => tests.filter((test) => test.status === status)
  const failures = counted('failed').map((test) => `${name}: ${test.fullName} (${relative(root, test.file)})`)
  for (const file of report.testResults) {
    const failedInside = file.assertionResults.some((test) => test.status === 'failed')
    if (file.status === 'failed' && !failedInside)
      failures.push(`${name}: ${relative(root, file.name)}: ${firstLine(file.message)}`)
  }
  const skips = tests
    .filter(({ status }) => status !== 'passed' && status !== 'failed')
    .map((test) => `${name}: ${test.fullName} (${relative(root, test.file)})`)
  return judged(name, counted('passed').length, failures, code, filtered, skips)
}

/** Counts a Playwright JSON report. A test that passed only when it was repeated counts as failed. */
export function ofPlaywright(name, path, code, filtered) {
  const report = read(path)
  if (report === null) return outcome(0, [`${name}: crashed (exit status ${code}), no report was written`])
  const tests = specsOf(report).flatMap((spec) => spec.tests.map((test) => ({ ...test, spec })))
  const counted = (...statuses) => tests.filter((test) => statuses.includes(test.status))
  const failures = counted('unexpected', 'flaky').map(
    ({ spec }) => `${name}: ${spec.title} (${spec.file}:${spec.line})`,
  )
  for (const error of report.errors ?? []) failures.push(`${name}: ${firstLine(error.message)}`)
  const skips = counted('skipped').map(({ spec }) => `${name}: ${spec.title} (${spec.file}:${spec.line})`)
  return judged(name, counted('expected').length, failures, code, filtered, skips)
}

function judged(name, passed, failures, code, filtered, skips) {
  const all = [...failures]
  const isEmpty = passed + failures.length + skips.length === 0
  if (isEmpty && !filtered) all.push(`${name}: ran no test`)
  if (code !== 0 && all.length === 0 && !(filtered && isEmpty))
    all.push(`${name}: exit status ${code} without a failed test`)
  // Tests that a filter leaves out do not count as skipped.
  return outcome(passed, all, filtered ? [] : skips)
}

const specsOf = (suite) => [...(suite.specs ?? []), ...(suite.suites ?? []).flatMap(specsOf)]
const firstLine = (text) => (text ?? 'failed').trim().split('\n')[0]
