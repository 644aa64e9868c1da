/** Runs before each test file of `npm run check`: see quick-lane.ts. */
import childProcess from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'

for (const name of ['spawn', 'spawnSync', 'fork', 'exec', 'execSync', 'execFile', 'execFileSync']) {
  childProcess[name] = (program) => {
    throw new Error(
      `A test of the quick lane starts a process (${name} ${String(program)}). The lane takes the tests that import ` +
        'nothing which starts processes: import what starts this one by a static import (e2e/scripts/quick-lane.ts).',
    )
  }
}
syncBuiltinESMExports()
