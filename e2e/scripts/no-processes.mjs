/** Runs before each test file of `npm run check`. See quick-lane.ts. */
import childProcess from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'

for (const name of ['spawn', 'spawnSync', 'fork', 'exec', 'execSync', 'execFile', 'execFileSync']) {
  childProcess[name] = (program) => {
    throw new Error(
      `A test of the quick lane starts a process (${name} ${String(program)}). The lane runs the tests that import ` +
        'no module that starts processes. Import the module that starts this one statically (e2e/scripts/quick-lane.ts).',
    )
  }
}
syncBuiltinESMExports()
