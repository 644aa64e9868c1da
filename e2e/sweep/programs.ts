import { rmSync } from 'node:fs'
import { cp, mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { build } from 'vite'
import { compiled, repository } from '../ground/repository.js'
import { SERVER_FOLDER } from '../programs/landfall.js'

/** The programs to be swept, each a file for `node`. */
export interface Programs {
  /** The `landfall` command. */
  readonly cli: string
  /** The application that embeds Landfall. It is used only with this repository's own server. */
  readonly app: string
}

const made = new Map<string, Promise<Programs>>()

/**
 * Bundles the modules of a built server into a few files. They do the same, and start in less than half the time. A
 * sweep starts the server thousands of times.
 */
export function programsOf(serverFolder: string): Promise<Programs> {
  const known = made.get(serverFolder) ?? make(serverFolder)
  made.set(serverFolder, known)
  return known
}

async function make(serverFolder: string): Promise<Programs> {
  // The folder belongs to this process alone, because another sweep may run at the same time.
  const folder = join(repository, 'e2e/build/swept', `${basename(serverFolder)}-${process.pid}`)
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const isOwn = serverFolder === SERVER_FOLDER
  const input = {
    cli: join(serverFolder, 'dist/cli.js'),
    // The server looks for the worker in the folder of the file that started it.
    'hash-worker': join(serverFolder, 'dist/blobs/file/hash-worker.js'),
    ...(isOwn ? { app: compiled('programs/application') } : {}),
  }
  await build({
    configFile: false,
    logLevel: 'warn',
    root: join(repository, 'e2e'),
    // These have native code, or start threads by the names of their own files.
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
