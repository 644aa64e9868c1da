import { rmSync } from 'node:fs'
import { cp, mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { build } from 'vite'
import { compiled, repository } from '../ground/repository.js'
import { SERVER_FOLDER } from '../programs/landfall.js'

/** Programs to be swept, each a file for `node`. */
export interface Programs {
  /** `landfall`. */
  readonly cli: string
  /** The application that embeds; only with this repository's own server. */
  readonly app: string
}

const made = new Map<string, Promise<Programs>>()

/**
 * The built server of a folder, its modules put together into a few files: what it does is the same, and it starts in
 * less than half the time. A sweep starts it thousands of times.
 */
export function programsOf(serverFolder: string): Promise<Programs> {
  const known = made.get(serverFolder) ?? make(serverFolder)
  made.set(serverFolder, known)
  return known
}

async function make(serverFolder: string): Promise<Programs> {
  // Of this process alone: another one may sweep as well.
  const folder = join(repository, 'e2e/build/swept', `${basename(serverFolder)}-${process.pid}`)
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const isOwn = serverFolder === SERVER_FOLDER
  const input = {
    cli: join(serverFolder, 'dist/cli.js'),
    // The server looks for it in the folder of the file that starts it.
    'hash-worker': join(serverFolder, 'dist/blobs/hash-worker.js'),
    ...(isOwn ? { app: compiled('programs/application') } : {}),
  }
  await build({
    configFile: false,
    logLevel: 'warn',
    root: join(repository, 'e2e'),
    // Native code, and what starts threads by the names of its own files.
    ssr: { noExternal: true, external: ['libsql', 'pino'] },
    build: {
      ssr: true,
      outDir: join(folder, 'dist'),
      emptyOutDir: true,
      minify: false,
      target: 'node20',
      rollupOptions: { input, output: { entryFileNames: '[name].js', chunkFileNames: '[name].js' } },
    },
  })
  await mkdir(folder, { recursive: true })
  await cp(join(serverFolder, 'package.json'), join(folder, 'package.json'))
  return { cli: join(folder, 'dist/cli.js'), app: join(folder, 'dist/app.js') }
}
