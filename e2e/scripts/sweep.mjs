import { join } from 'node:path'
import { bin, main, root, run, say, Stop } from './run.mjs'
import { setup } from './setup.mjs'

const USAGE = `npm run sweep [-- server|nodes|client|mutations|model] [options]
  server      the server is killed around each of its external calls; --sample N, --seed S, --parallel P,
              --only WORDS (a part of the line that is printed for a run; several: 'WORDS;WORDS')
  nodes       one of three nodes is killed around each of its calls to PostgreSQL and S3; the same options
  client      the page is killed around each journal write and each request; the same options
  model       the model runs every pair of faults
  mutations   changed copies of the server, then of the client: each must be found
  default: server, then client`
const PROGRAMS = {
  server: [['sweep/main.js']],
  nodes: [['sweep/main.js', '--nodes']],
  client: [['sweep/client/main.js']],
  mutations: [['mutants/main.js']],
}

await main(async () => {
  const [first, ...rest] = process.argv.slice(2)
  const named = first !== undefined && !first.startsWith('-')
  if (named && first !== 'model' && !(first in PROGRAMS)) throw new Stop(USAGE)
  const { chromium } = await setup({ browser: true })
  const env = chromium === null ? {} : { CHROMIUM_PATH: chromium }
  const built = await bin('turbo', ['run', 'build', '--output-logs=errors-only'], { env })
  if (built.code !== 0) throw new Stop(`The build failed (${built.code}); see above.`)
  if (first === 'model') {
    const { code } = await bin('vitest', ['run', 'test/model.test.ts'], {
      cwd: join(root, 'server'),
      env: { ...env, LANDFALL_MODEL: 'full' },
      limitMs: 12 * 3_600_000,
    })
    return code
  }
  let worst = 0
  for (const which of named ? [first] : ['server', 'client']) {
    say(`\n── ${which} ──`)
    for (const [program, ...flags] of PROGRAMS[which]) {
      const path = join(root, 'e2e', 'dist', program)
      const { code } = await run(process.execPath, [path, ...flags, ...(named ? rest : process.argv.slice(2))], {
        env,
        limitMs: 24 * 3_600_000,
      })
      worst = Math.max(worst, code ?? 1)
    }
  }
  return worst
})
