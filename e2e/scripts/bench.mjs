import { join } from 'node:path'
import { bin, main, root, run, Stop } from './run.mjs'
import { setup } from './setup.mjs'

await main(async () => {
  await setup({ browser: false })
  // The benchmark does not use the client, so the client is not built.
  const built = await bin('tsc', ['-b', 'server', 'e2e'])
  if (built.code !== 0) throw new Stop(`The build failed (${built.code}); see above.`)
  const { code } = await run(
    process.execPath,
    [join(root, 'e2e', 'dist', 'bench', 'run.js'), ...process.argv.slice(2)],
    {
      limitMs: 6 * 3_600_000,
    },
  )
  return code
})
