/** The packed server on each version of Node that its users run: what is built here must not rest on this one. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import { type NodeBinary, nodeOf } from '../../ground/node-versions.js'
import { install, link, pack, PACKAGES } from '../../ground/packed.js'
import { UPLOAD_OWNER_HEADER, uploadAcrossRestarts } from '../../ground/one-upload.js'
import { startProcess } from '../../ground/processes.js'

const MAJORS = [20, 22, 24]

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let cli: string
const binaries = new Map<number, NodeBinary>()

beforeAll(async () => {
  directory = await temporaryDirectory()
  const project = join(directory.path, 'project')
  const packed = async (): Promise<void> => {
    const tarballs: string[] = []
    for (const name of PACKAGES) tarballs.push(await pack(repository, name, join(directory.path, 'tarballs')))
    await install(repository, project, tarballs)
    // What an application has installed itself.
    await link(repository, project, ['hono', 'drizzle-orm', '@libsql/client'])
    await writeFile(join(project, 'package.json'), '{ "type": "module" }')
    cli = join(project, 'node_modules/@landfall/server/dist/cli.js')
  }
  const installed = MAJORS.map(async (major) => {
    binaries.set(major, await nodeOf(major, join(directory.path, `node-${major}`)))
  })
  await Promise.all([packed(), ...installed])
})
afterAll(() => directory.remove())

test.for(MAJORS)('Node %i takes an upload across a restart, and serves it after another', async (major, { skip }) => {
  const binary = binaries.get(major)
  if (binary?.outcome !== 'found') return skip(binary?.why)
  expect(binary.version).toMatch(new RegExp(`^v${major}\\.`))
  const server = await startProcess({
    name: `landfall on Node ${binary.version}`,
    command: binary.path,
    args: [cli, 'serve'],
    env: {
      LANDFALL_PORT: '0',
      LANDFALL_DATA_DIR: join(directory.path, `data-${major}`),
      LANDFALL_OWNER_HEADER: UPLOAD_OWNER_HEADER,
    },
    ready: /landfall listens on (\S+)\n/,
  })
  try {
    await uploadAcrossRestarts(server)
  } finally {
    expect(await server.kill('SIGTERM')).toEqual({ code: 0, signal: null })
  }
})
