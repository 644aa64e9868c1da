import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { bin, main, root, run, Stop } from './run.mjs'
import { setup } from './setup.mjs'

const USAGE = `npm run chaos [-- options]
  --minutes 10       how long faults strike, for each system
  --seed 1           the seed of users and faults
  --system both      landfall, peer (both variants of it), tus, tus-sync, both (all of these), or
                     nodes: three of them on PostgreSQL and S3, behind a balancer without sessions
  --without clock    words of names of faults to leave out, separated by commas
  --mutant NAME      runs Landfall with one of the sweep's mutations in it
  --json             reports as JSON, the rest on standard error`

await main(async () => {
  const args = process.argv.slice(2)
  if (args.includes('--help')) throw new Stop(USAGE)
  const peersOnly = /--system[ =](peer|tus)/.test(args.join(' '))
  const { chromium } = await setup({ browser: !peersOnly })
  await ensureFaketime()
  const env = chromium === null ? {} : { CHROMIUM_PATH: chromium }
  const built = await bin('turbo', ['run', 'build', '--output-logs=errors-only'], {
    env,
    quiet: args.includes('--json'),
  })
  if (built.code !== 0) throw new Stop(`The build failed (${built.code}); see above.\n${built.output}`)
  const program = join(root, 'e2e', 'dist', 'chaos', 'run.js')
  const { code } = await run(process.execPath, [program, ...args], { env, limitMs: 24 * 3_600_000 })
  return code
})

/** Installs the library that sets the server's clock. Without it that fault is left out, and the run says so. */
async function ensureFaketime() {
  const isThere = ['/usr/lib', '/usr/lib64']
    .filter((lib) => existsSync(lib))
    .some((lib) =>
      ['.', ...readdirSync(lib)].some((folder) => existsSync(join(lib, folder, 'faketime', 'libfaketimeMT.so.1'))),
    )
  if (isThere || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return
  const apt = (...args) =>
    run('apt-get', args, { quiet: true, limitMs: 5 * 60_000, env: { DEBIAN_FRONTEND: 'noninteractive' } })
  await apt('update')
  const { code } = await apt('install', '-y', '--no-install-recommends', 'faketime')
  if (code !== 0) process.stderr.write('faketime could not be installed. The faults that set the clock are left out.\n')
}
