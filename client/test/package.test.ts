import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { rolldown } from 'rolldown'
import { beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const KIB = 1024
const gzipBytes = (code: string): number => gzipSync(code, { level: 9 }).length

/** The package as it is published, put through a bundler like an application's. */
describe('the built package', () => {
  beforeAll(() => {
    if (!existsSync(join(root, 'dist/index.js'))) throw new Error('build first: npm run build')
  })

  it('the headless client with everything it needs is at most 23 KiB, minified and gzipped', async () => {
    const bundle = await rolldown({ input: join(root, 'dist/index.js'), platform: 'browser', tsconfig: false })
    const { output } = await bundle.generate({ format: 'esm', minify: true })
    const bytes = output.reduce((sum, part) => sum + (part.type === 'chunk' ? gzipBytes(part.code) : 0), 0)
    expect(bytes).toBeGreaterThan(10 * KIB)
    expect(bytes).toBeLessThanOrEqual(23 * KIB)
  })

  it('the worker is one file without imports, at most 8 KiB', () => {
    const code = readFileSync(join(root, 'dist/worker.js'), 'utf8')
    expect(gzipBytes(code)).toBeLessThanOrEqual(8 * KIB)
    expect(code).not.toMatch(/\b(import|export|require)\b\s*[({'"]/)
  })

  it('contains nothing that a strict Content-Security-Policy forbids', () => {
    for (const name of ['index.js', 'worker.js']) {
      const code = readFileSync(join(root, 'dist', name), 'utf8')
      expect(code).not.toMatch(/\beval\(|new Function\(|createObjectURL|WebAssembly\./)
    }
  })

  it('is imported and called where there is no browser', () => {
    const script = `
      for (const name of ['window', 'document', 'indexedDB', 'XMLHttpRequest', 'fetch', 'Worker', 'localStorage'])
        Object.defineProperty(globalThis, name, { get() { throw new Error('touched ' + name) } })
      const { createUploader } = await import(${JSON.stringify(join(root, 'dist/index.js'))})
      const uploader = createUploader({ endpoint: '/uploads', scope: 'alice', workerUrl: '/worker.js' })
      uploader.on('referenced', () => {})
      uploader.subscribe(() => {})()
      console.log(JSON.stringify(uploader.snapshot()))`
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    expect(JSON.parse(out)).toEqual({ uploads: [], recovered: false, warnings: [] })
  })

  it('its types name nothing that is not installed with it', () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>
    }
    for (const name of readdirSync(join(root, 'dist'), { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.d.ts')) continue
      for (const [, from = ''] of readFileSync(join(root, 'dist', name), 'utf8').matchAll(/from '([^']+)'/g)) {
        if (!from.startsWith('.')) expect(Object.keys(dependencies)).toContain(from)
      }
    }
  })
})

it('imports run one way: words and rules, ports, sequence, list; only the entry point picks adapters', () => {
  const src = join(root, 'src')
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
  const importsOf = (name: string): string[] =>
    [...readFileSync(join(src, name), 'utf8').matchAll(/(?:from|import\() ?'(\.[^']+)'/g)].map(([, to = '']) =>
      relative(src, join(src, dirname(name), to.replace(/\.js$/, '.ts'))),
    )
  for (const name of files) {
    const imports = importsOf(name)
    if (name !== 'uploader.ts' && !name.startsWith('adapters/')) {
      expect(imports.filter((to) => to.startsWith('adapters/'))).toEqual([])
    }
    if (['operation.ts', 'progress.ts', 'ports.ts'].includes(name)) {
      expect(imports.filter((to) => !['operation.ts', 'ports.ts', 'progress.ts'].includes(to))).toEqual([])
    }
    if (['run.ts', 'source.ts', 'follow.ts', 'keep.ts'].includes(name)) {
      expect(imports.filter((to) => ['list.ts', 'uploader.ts', 'upload.ts', 'events.ts'].includes(to))).toEqual([])
    }
  }
  expect(files.length).toBeGreaterThan(20)
})
