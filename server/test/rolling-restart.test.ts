/** Three nodes on PostgreSQL and S3 behind nginx, which are restarted one after the other while clients upload. */
import * as tus from 'tus-js-client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { findProgram } from './debian.js'
import { content, digestOf, later, newId } from './harness.js'
import { freePort, startNginx } from './nginx.js'
import { type Node, nodesOn } from './nodes.js'
import { ownerTags } from './owner-tags.js'
import { useProgram } from './program.js'
import { s3Server } from './s3.js'

const MIB = 1024 * 1024
const found = findProgram('nginx', 'nginx-light')
const { missing: noS3, config } = await s3Server()
const missing = noS3 ?? ('missing' in found ? found.missing : null)
const AS_ANN = { Authorization: `Basic ${Buffer.from('ann:secret').toString('base64')}` }

describe.skipIf(missing !== null)(`a rolling restart${missing === null ? '' : ` (${missing})`}`, () => {
  const program = useProgram()
  let postgres: Postgres
  beforeAll(async () => {
    postgres = await startPostgres()
  }, 60_000)
  afterAll(() => postgres.stop())

  test('loses nothing: each upload arrives once, and no acknowledged byte is asked for again', async () => {
    const shared = nodesOn(await postgres.database(), config)
    const ports = await Promise.all([freePort(), freePort(), freePort()])
    const start = (n: number): Promise<Node> =>
      program.serve({
        ...shared,
        LANDFALL_PORT: String(ports[n]),
        LANDFALL_DATA_DIR: `${program.directory}/node-${n}`,
      })
    const nodes = await Promise.all([start(0), start(1), start(2)])
    const nginx = await startNginx('path' in found ? found.path : '', program.directory, ports)
    await nginx.start()
    const base = `${nginx.address}/uploads`
    const tagOf = ownerTags(() => fetch(`${base}/operations?open`, { headers: AS_ANN }))
    const ask = async (
      method: string,
      path: string,
      init: { headers?: Record<string, string>; body?: string | Uint8Array<ArrayBuffer> } = {},
    ) => {
      const own = { ...AS_ANN, 'Landfall-Version': '1', 'Landfall-Owner': await tagOf('ann') }
      return fetch(base + path, { method, ...init, headers: { ...own, ...init.headers } })
    }

    let restarts = 0
    const isOver = (): boolean => restarts >= 6
    /** Our own wire: declares, and goes on at the offset that the answer says. */
    async function upload(): Promise<string> {
      const id = newId()
      const bytes = content(6 * MIB + 77)
      let acknowledged = 0
      // Until all nodes were restarted, slowly; then as fast as it goes.
      while (acknowledged < bytes.length) {
        const declared = await ask('PUT', `/operations/${id}`, {
          body: JSON.stringify({ file: { name: 'a', size: bytes.length, type: '' } }),
        }).catch(() => null)
        if (declared === null || !declared.ok) {
          await later(100)
          continue
        }
        const { offset } = (await declared.json()) as { offset: number }
        expect(offset).toBeGreaterThanOrEqual(acknowledged)
        acknowledged = offset
        if (offset === bytes.length) break
        const patched = await ask('PATCH', `/files/${id}`, {
          headers: {
            'Tus-Resumable': '1.0.0',
            'Upload-Offset': String(offset),
            'Content-Type': 'application/offset+octet-stream',
          },
          body: bytes.subarray(offset, offset + (isOver() ? 4 * MIB : 256 * 1024)),
        }).catch(() => null)
        if (patched?.status === 204) acknowledged = Number(patched.headers.get('Upload-Offset'))
        await later(isOver() ? 0 : 100)
      }
      return id
    }
    /** A stock client, whose few retries must be enough. */
    const stock = (): Promise<string> =>
      new Promise((resolve, reject) => {
        const id = newId()
        const sent = new tus.Upload(Buffer.from(content(3 * MIB + 5)), {
          endpoint: `${base}/files`,
          headers: AS_ANN,
          metadata: { operationId: id, filename: 'a' },
          chunkSize: 512 * 1024,
          retryDelays: [0, 1_000, 3_000, 5_000],
          storeFingerprintForResuming: false,
          onSuccess: () => resolve(id),
          onError: reject,
        })
        sent.start()
      })

    const uploads = [...Array.from({ length: 8 }, upload), ...Array.from({ length: 4 }, stock)]
    for (let n = 0; !isOver(); n = (n + 1) % 3) {
      nodes[n]?.child.kill('SIGTERM')
      expect(await nodes[n]?.exited).toMatchObject({ code: 0 })
      nodes[n] = await start(n)
      await later(300)
      restarts += 1
    }
    const ids = await Promise.all(uploads)
    expect(new Set(ids).size).toBe(12)
    for (const [n, id] of ids.entries()) {
      const operation = (await (await ask('GET', `/operations/${id}?wait=20`)).json()) as { recoveryPoint: string }
      expect(operation.recoveryPoint).toMatch(/referenced|completed/)
      const stored = await ask('GET', `/files/${id}`)
      const size = n < 8 ? 6 * MIB + 77 : 3 * MIB + 5
      expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(content(size)))
    }
    const open = (await (await ask('GET', '/operations?open')).json()) as { operations: unknown[] }
    expect(open.operations).toEqual([])
    await nginx.stop()
  }, 180_000)
})
