/** The commands as an operator runs them: the built program, real files, and a real server. */
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import Database from 'libsql'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { relativePath } from '../src/blobs/key.js'
import { content, eventually, newId } from './harness.js'
import { CLI, useProgram } from './program.js'

// Each command is a process of its own, which takes time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })
const program = useProgram()
const { start, serve } = program
let data: string
beforeEach(() => {
  data = join(program.directory, 'data')
})

const landfall = (...args: string[]) => start([...args, '--data-dir', data]).exited
const lines = (text: string): string[] => text.trimEnd().split('\n')
const parsed = (text: string): Record<string, unknown>[] =>
  lines(text).map((line) => JSON.parse(line) as Record<string, unknown>)
const ISO = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/
const UNKNOWN = '0190000000007000800000000000000a'
const pathOf = (key: string, directory = data): string => join(directory, 'blobs/blobs', relativePath(key))
const plant = (key: string, directory = data): void => {
  mkdirSync(join(pathOf(key, directory), '..'), { recursive: true })
  writeFileSync(pathOf(key, directory), 'whose?')
}
const stored = (directory = data): string[] =>
  readdirSync(join(directory, 'blobs/blobs'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)
    .toSorted()

/** Changes the database directly and quickly, because another writer waits for it. */
function inDatabase(sql: string, directory = data): void {
  const db = new Database(join(directory, 'landfall.db'), { timeout: 5_000 })
  db.exec(sql)
  db.close()
}
/** Puts an operation in the state of one whose hook has failed for too long. */
const stall = (id: string): void =>
  inDatabase(
    `UPDATE landfall_operations SET stalled = 1, due_at = NULL, last_error = 'the scanner is away' WHERE id = '${id}'`,
  )

type Server = Awaited<ReturnType<typeof serve>>
async function upload(server: Server, size = 5, bytes = size): Promise<string> {
  const id = newId()
  expect((await server.declare(id, size)).status).toBe(201)
  if (bytes > 0) expect((await server.patch(id, 0, content(size).subarray(0, bytes))).status).toBe(204)
  return id
}
async function stop({ child, exited }: Server, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  child.kill(signal)
  await exited
}

// Every command does the same through the server's socket and without a server.
describe.each(['with a running server', 'while no server runs'] as const)('%s', (where) => {
  const isBeside = where === 'with a running server'
  /** Leaves the server running, or stops it. */
  const then = async (server: Server): Promise<void> => {
    if (!isBeside) await stop(server)
  }

  test('operations list prints a table, newest first, with bytes and times, and has filters and pages', async () => {
    const server = await serve()
    const first = await upload(server, 12_345)
    const second = await upload(server, 100, 40)
    await server.declare(newId(), 7, 'bob')
    stall(second)
    await then(server)
    const { code, out, err } = await landfall('operations', 'list')
    expect([code, err]).toEqual([0, ''])
    const [head = '', ...rows] = lines(out)
    expect(head.split(/\s{2,}/)).toEqual(['id', 'owner', 'point', 'bytes', 'of', 'changed', 'file'])
    expect(rows.map((row) => row.split(/\s{2,}/))).toEqual([
      [expect.any(String), 'bob', 'declared', '0', '7', expect.stringMatching(ISO), '"a"'],
      [second, 'ann', 'declared (stalled)', '40', '100', expect.stringMatching(ISO), '"a"'],
      [
        first,
        'ann',
        expect.stringMatching(/^(referenced|completed)$/),
        '12345',
        '12345',
        expect.stringMatching(ISO),
        '"a"',
      ],
    ])
    // The columns are aligned.
    for (const row of rows) expect(row.indexOf('"a"')).toBe(head.indexOf('file'))
    const of = async (...args: string[]) => parsed((await landfall('operations', 'list', '--json', ...args)).out)
    expect((await of('--owner', 'bob')).map(({ owner }) => owner)).toEqual(['bob'])
    expect((await of('--stalled')).map(({ id }) => id)).toEqual([second])
    expect((await of('--point', 'declared')).map(({ owner }) => owner)).toEqual(['bob', 'ann'])
    // A page names the command for the next page.
    const page = await landfall('operations', 'list', '--limit', '2', '--json')
    const after = /--after ([0-9a-f]{32})\n$/.exec(page.err)?.[1] ?? ''
    expect(parsed(page.out).at(-1)).toMatchObject({ id: second, blobKey: after })
    expect((await of('--after', after)).map(({ id }) => id)).toEqual([first])
    expect(await landfall('operations', 'list', '--given-up')).toMatchObject({ code: 0, out: 'none\n', err: '' })
  })

  test('operations show prints the state of an operation, the reason for it, and the effects that it owes', async () => {
    const server = await serve({
      LANDFALL_WEBHOOK_URL: 'http://127.0.0.1:9/hook',
      LANDFALL_WEBHOOK_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    })
    const id = await upload(server, 2_048)
    await eventually(
      async () => (await start(['operations', 'show', id, '--json', '--data-dir', data]).exited).out,
      (text) => text.includes('not allowed'),
      15_000,
    )
    const half = await upload(server, 100, 40)
    stall(half)
    await then(server)
    const { code, out } = await landfall('operations', 'show', id)
    expect(code).toBe(0)
    expect(out).toMatch(/^point +referenced$/m)
    expect(out).toMatch(/^file +"a", 2\.0 KiB, type not given$/m)
    expect(out).toMatch(/^accepted +2048 of 2048 bytes$/m)
    expect(out).toMatch(/^digest +sha-256=:.+:$/m)
    expect(out).toMatch(/^webhook +[-0-9a-f]{36} +webhook +\d+ +due .+Z +.*not allowed/m)
    expect((await landfall('operations', 'show', half)).out).toMatch(/^last error +the scanner is away$/m)
    expect(parsed((await landfall('operations', 'show', id, '--json')).out)).toMatchObject([
      { operation: { id, point: 'referenced' }, effects: [{ name: 'webhook', deliveredAt: null }] },
    ])
  })

  test('operations retry ends a stall, and says if there is none', async () => {
    const server = await serve()
    const id = await upload(server, 100, 40)
    expect((await server.request('GET', `/operations/${id}`)).status).toBe(200)
    stall(id)
    await then(server)
    expect(await landfall('operations', 'retry', id)).toMatchObject({
      code: 0,
      out: `it is tried again ${isBeside ? 'now' : 'when a server runs'}\n`,
      err: '',
    })
    const { operation } = parsed((await landfall('operations', 'show', id, '--json')).out)[0] ?? {}
    expect(operation).toMatchObject({ stalled: false, offset: 40 })
    expect(await landfall('operations', 'retry', id)).toMatchObject({
      code: 2,
      out: '',
      err: 'there is nothing to retry: it is not stalled, and no effect was given up\n',
    })
  })

  test('operations cancel ends an operation without a reference, can be repeated, and refuses all others', async () => {
    const server = await serve()
    const half = await upload(server, 100, 40)
    const whole = await upload(server)
    await then(server)
    for (let n = 0; n < 2; n += 1)
      expect(await landfall('operations', 'cancel', half)).toMatchObject({ code: 0, out: 'cancelled\n', err: '' })
    const refused = await landfall('operations', 'cancel', whole)
    expect(refused).toMatchObject({ code: 2, out: '' })
    expect(refused.err).toBe('The file is stored already\n')
  })

  test('an id that several owners use, or that no owner uses, is refused', async () => {
    const server = await serve()
    const id = newId()
    await server.declare(id, 5)
    await server.declare(id, 5, 'bob')
    await then(server)
    for (const command of ['show', 'retry', 'cancel']) {
      expect(await landfall('operations', command, id)).toMatchObject({
        code: 2,
        out: '',
        err: 'several owners use this id: add --owner\n',
      })
      expect(await landfall('operations', command, newId())).toMatchObject({
        code: 2,
        err: 'there is no such operation\n',
      })
      expect(await landfall('operations', command, 'x', '--owner', "o'brien")).toMatchObject({ code: 2, out: '' })
    }
    expect(await landfall('operations', 'cancel', id, '--owner', 'bob')).toMatchObject({ code: 0 })
    const points = parsed((await landfall('operations', 'list', '--json')).out)
    expect(points.map(({ owner, point }) => [owner, point])).toEqual([
      ['bob', 'cancelled'],
      ['ann', 'declared'],
    ])
  })

  test('reconcile without --apply changes nothing, and its exit status is 0 only if nothing differs', async () => {
    const server = await serve()
    await upload(server)
    await upload(server, 100, 40)
    await then(server)
    const clean = await landfall('reconcile')
    expect(clean).toMatchObject({ code: 0, err: '' })
    expect(clean.out).toMatch(/^2 operations, 2 blobs, \d+\.\d s\nnothing differs\n$/)
    plant(UNKNOWN)
    const different = await landfall('reconcile')
    expect(different).toMatchObject({ code: 1, err: '' })
    expect(lines(different.out)).toEqual([
      `unknown         ${UNKNOWN}  6 bytes`,
      expect.stringMatching(/^2 operations, 3 blobs/),
      '1  unknown  bytes of which the ledger has no row',
      'use --apply to repair what can be repaired',
      '1 differ',
    ])
    expect(stored()).toHaveLength(3)
    const json = await landfall('reconcile', '--json')
    expect(json).toMatchObject({ code: 1, err: '' })
    expect(parsed(json.out)).toMatchObject([
      { finding: { type: 'unknown', blob: UNKNOWN, operation: null, sizeBytes: 6, action: 'none' } },
      { report: { applied: false, operations: 2, blobs: 3, difference: 1, found: { unknown: 1, missing: 0 } } },
    ])
  })

  test('reconcile --apply quarantines blobs that --force allows, and deletes them when their time in quarantine is over', async () => {
    const server = await serve()
    await upload(server)
    plant(UNKNOWN)
    const another = `${UNKNOWN.slice(0, -1)}b`
    plant(another)
    await then(server)
    const refused = await landfall('reconcile', '--apply')
    expect(refused.code).toBe(1)
    expect(refused.out).toContain('done: 0 taken back, 0 set aside, 0 deleted\n')
    expect(refused.out).toMatch(/nothing was deleted or set aside: 2 of 3 blobs would be removed, more than 1 %/)
    expect(stored()).toContain(UNKNOWN)
    const forced = await landfall('reconcile', '--apply', '--force')
    expect(forced.code).toBe(0)
    expect(forced.out).toContain(`unknown         ${UNKNOWN}  6 bytes  -> quarantined\n`)
    expect(forced.out).toContain('2 in quarantine\ndone: 0 taken back, 2 set aside, 0 deleted\n')
    expect(stored()).not.toContain(UNKNOWN)
    const over = await landfall('reconcile', '--apply', '--force', '--quarantine-days', '0')
    expect(over.out).toContain(`overdue         ${UNKNOWN}  6 bytes  -> deleted\n`)
    expect(over.code).toBe(0)
    expect(await landfall('reconcile')).toMatchObject({ code: 0 })
  })

  test('doctor prints one line for each check, and what to do about it', async () => {
    const server = await serve()
    const id = await upload(server, 100, 40)
    stall(id)
    await then(server)
    const { code, out, err } = await landfall('doctor')
    expect([code, err]).toEqual([0, ''])
    const checks = lines(out).filter((line) => !line.startsWith(' '))
    expect(checks.map((line) => line.split(/\s{2,}/).slice(0, 2))).toEqual([
      ['ok', 'settings'],
      [isBeside ? 'ok' : 'warning', 'server'],
      ['ok', 'database'],
      ['ok', 'tables'],
      ['ok', 'store'],
      ['ok', 'identity'],
      [expect.stringMatching(/ok|warning/), 'space'],
      ['ok', 'clock'],
      ['ok', 'completer'],
      ['warning', 'operations'],
      ['ok', 'effects'],
    ])
    for (const [n, line] of lines(out).entries())
      if (line.startsWith('warning')) expect(lines(out)[n + 1]).toMatch(/^ {21}\S.*\.$/)
    expect(out).toMatch(/operations {2}1 open, 1 of them stalled\n {21}.*operations list --stalled/)
    const json = parsed((await landfall('doctor', '--json')).out)
    expect(json).toHaveLength(11)
    for (const check of json)
      expect(check).toEqual({
        name: expect.any(String),
        state: expect.stringMatching(/^(ok|warning|failed)$/),
        found: expect.any(String),
        advice: check['state'] === 'ok' ? null : expect.any(String),
      })
  })
})

describe('a ledger that does not belong to the bytes', () => {
  test('restored from an older backup: reconcile --apply deletes nothing and says why, until --accept-restored', async () => {
    const first = await serve()
    await upload(first)
    await stop(first)
    const database = join(data, 'landfall.db')
    // Committed data is in the write-ahead log until a checkpoint moves it.
    inDatabase('PRAGMA wal_checkpoint(TRUNCATE)')
    copyFileSync(database, `${database}.backup`)
    const second = await serve()
    const lost = await upload(second)
    const half = await upload(second, 100, 40)
    await stop(second)
    const keys = parsed((await landfall('operations', 'list', '--json')).out)
    const keyOf = (id: string): string => keys.find((operation) => operation['id'] === id)?.['blobKey'] as string
    for (const suffix of ['-wal', '-shm']) rmSync(database + suffix, { force: true })
    copyFileSync(`${database}.backup`, database)
    // This holds with and without a server, and also after a server has worked on it.
    const third = await serve()
    for (let n = 0; n < 3; n += 1) await upload(third)
    const before = stored()
    for (const beside of [true, false]) {
      if (!beside) await stop(third)
      const { code, out } = await landfall('reconcile', '--apply', '--force', '--quarantine-days', '0')
      expect(code).toBe(1)
      for (const id of [lost, half]) expect(out).toMatch(new RegExp(`^unknown         ${keyOf(id)}  \\d+ bytes$`, 'm'))
      expect(out).toContain(
        'nothing was deleted or set aside: the ledger is older than its store: it was restored from a backup, and 2 blobs that it does not know may be files of users. Restore a newer backup, or give them up with --accept-restored\n',
      )
      expect(stored()).toEqual(before)
      const identity = lines((await landfall('doctor')).out).find((line) => line.includes('  identity  '))
      expect(identity).toMatch(
        /^warning  identity    the ledger was found to be older than its store on .*Z: it was restored/,
      )
    }
    // An acceptance is kept if the command is then refused for another reason.
    for (let n = 0; n < 6; n += 1) plant(`${UNKNOWN.slice(0, -1)}${n}`)
    const more = stored()
    const tooMany = await landfall('reconcile', '--apply', '--accept-restored')
    expect(tooMany.out).toMatch(/nothing was deleted or set aside: 8 of 12 blobs would be removed/)
    expect((await landfall('reconcile', '--apply', '--force')).out).toContain('restored from a backup')
    expect(stored()).toEqual(more)
    const accepted = await landfall('reconcile', '--apply', '--force', '--accept-restored')
    expect(accepted.out).toContain('done: 0 taken back, 8 set aside, 0 deleted\n')
    expect(accepted.code).toBe(0)
    expect(await landfall('reconcile')).toMatchObject({ code: 0 })
  })

  test("another environment's database: every command is refused, and nothing is touched", async () => {
    const mine = await serve()
    await upload(mine)
    await stop(mine)
    const theirs = join(program.directory, 'theirs')
    const other = await serve({ LANDFALL_DATA_DIR: theirs })
    await upload(other)
    await stop(other)
    // Uses the other database with this store.
    const mixed = join(program.directory, 'mixed')
    cpSync(theirs, mixed, { recursive: true })
    rmSync(join(mixed, 'blobs'), { recursive: true })
    cpSync(join(data, 'blobs'), join(mixed, 'blobs'), { recursive: true })
    const before = stored(mixed)
    const on = (...args: string[]) => start([...args, '--data-dir', mixed]).exited
    for (const args of [
      ['reconcile', '--apply', '--force', '--accept-restored', '--quarantine-days', '0'],
      ['reconcile'],
      ['operations', 'list'],
    ]) {
      const { code, out, err } = await on(...args)
      expect([code, out]).toEqual([2, ''])
      expect(err).toMatch(
        /^this directory of blobs belongs to another database: give each environment a directory of its own\. If it is the same database, .*drizzle-kit push.*tablesFilter.*\n$/,
      )
    }
    expect(stored(mixed)).toEqual(before)
    // doctor reports it as well.
    const { code, out } = await on('doctor')
    expect(code).toBe(1)
    expect(out).toMatch(
      /^failed {3}identity {4}this directory of blobs belongs to another database.*\n {21}Nothing can be stored until this is fixed/m,
    )
    expect(out).toMatch(/^ok {7}database/m)
    // A server refuses it, too.
    await expect(serve({ LANDFALL_DATA_DIR: mixed })).rejects.toThrow('belongs to another database')
  })
})

describe('a command that cannot run changes nothing', () => {
  const COMMANDS = [['operations', 'list'], ['reconcile', '--apply'], ['doctor']]

  test.each(COMMANDS)('%s %s on a directory that does not exist', async (...args) => {
    expect(await landfall(...args)).toMatchObject({
      code: 2,
      out: '',
      err: `LANDFALL_DATA_DIR: there is no directory ${data}\n`,
    })
    expect(readdirSync(program.directory)).toEqual([])
  })

  test.each(COMMANDS)('%s %s on a directory and a database of another program', async (...args) => {
    mkdirSync(data)
    writeFileSync(join(data, 'thesis.txt'), 'mine')
    const none = await landfall(...args)
    expect(none).toMatchObject({ code: 2, out: '' })
    expect(none.err).toContain('no server has ever run on')
    inDatabase('CREATE TABLE photos (name TEXT)')
    expect((await landfall(...args)).err).toContain('no server has ever run on')
    writeFileSync(join(data, 'landfall.db'), 'this is no database, whatever its name says. '.repeat(100))
    expect(await landfall(...args)).toMatchObject({ code: 2, err: expect.stringContaining('cannot be read') })
    expect(readdirSync(data).toSorted()).toEqual(['landfall.db', 'thesis.txt'])
  })

  test.each([
    [['reconcile', '--nonsense'], 'unknown option'],
    [['reconcile', '--quarantine-days', 'soon'], '--quarantine-days: 0 to 3650'],
    [['reconcile', '--quarantine-days', '-1'], '--quarantine-days: 0 to 3650'],
    [['operations', 'list', '--limit', '0'], '--limit: a number from 1 to 999999'],
    [['operations', 'list', '--point', 'nowhere'], 'Allowed choices are declared'],
    [['operations', 'show'], "missing required argument 'id'"],
    [['operations', 'explode'], "unknown command 'explode'"],
    [['reconcile', '--database-url', 'mysql://x'], 'LANDFALL_DATABASE_URL'],
    [['operations'], 'Usage: landfall operations'],
  ])('%j: the exit status is 2, and the error says what is wrong', async (args, message) => {
    const server = await serve()
    plant(UNKNOWN)
    const { code, out, err } = await start(args, { LANDFALL_DATA_DIR: data }).exited
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain(message)
    expect(err).not.toMatch(/\n\s+at /)
    expect(stored()).toEqual([UNKNOWN])
    await stop(server)
  })

  test('--help and --version exit with 0', async () => {
    const help = await start(['reconcile', '--help']).exited
    expect(help).toMatchObject({ code: 0, err: '' })
    expect(help.out).toContain('Exit status: 0 nothing differs, 1 something differs, 2 it could not compare.')
    expect(await start(['--version']).exited).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    })
  })
})

describe("the server's socket", () => {
  test('may be opened only by its own user, and is removed with the server', async () => {
    const server = await serve()
    const socket = join(data, 'landfall.sock')
    expect(statSync(socket).mode & 0o777).toBe(0o600)
    await stop(server)
    expect(existsSync(socket)).toBe(false)
  })

  test('that a killed server has left behind is ignored and replaced', async () => {
    const server = await serve()
    const id = await upload(server)
    await stop(server, 'SIGKILL')
    expect(existsSync(join(data, 'landfall.sock'))).toBe(true)
    expect(parsed((await landfall('operations', 'list', '--json')).out)).toMatchObject([{ id }])
    const again = await serve()
    expect(lines((await landfall('doctor')).out)).toContain('ok       server      runs and answers')
    await stop(again)
  })

  test('of a server that hangs is not waited for, and the command says so', async () => {
    const server = await serve()
    server.child.kill('SIGSTOP')
    try {
      const [list, doctor] = await Promise.all([landfall('operations', 'list'), landfall('doctor')])
      expect(list).toMatchObject({ code: 2, out: '' })
      expect(list.err).toMatch(/^a server holds this data directory, and did not answer within 10 s/)
      expect(doctor.code).toBe(1)
      expect(doctor.out).toMatch(/^failed {3}server {6}a server holds this data directory, and did not answer/m)
    } finally {
      server.child.kill('SIGCONT')
    }
    expect(await landfall('operations', 'list')).toMatchObject({ code: 0 })
  })

  test('of a server of another version is refused, and the command says so', async () => {
    const first = await serve()
    await stop(first)
    const other = createServer((socket) => {
      socket.on('error', () => {})
      socket.on('data', () => socket.end(`${JSON.stringify({ result: { protocol: 99 } })}\n`))
    })
    other.listen(join(data, 'landfall.sock'))
    await once(other, 'listening')
    const { code, err } = await landfall('operations', 'list')
    other.close()
    expect([code, err]).toEqual([
      2,
      'the running server has another version: use the `landfall` command of that version\n',
    ])
  })

  test('whose path would be too long does not exist, and the command asks to stop the server', async () => {
    data = join(program.directory, 'd'.repeat(120))
    const server = await serve({ LANDFALL_DATA_DIR: data })
    const { code, err } = await landfall('operations', 'list')
    expect(code).toBe(2)
    expect(err).toContain('another process uses this directory of blobs')
    await stop(server)
    expect(await landfall('operations', 'list')).toMatchObject({ code: 0 })
  })
})

describe('output that is not a terminal', () => {
  /** Makes more findings than a pipe can hold. */
  const plantMany = (count: number): void => {
    for (let n = 0; n < count; n += 1) plant(`0190000000007000800000000${n.toString(16).padStart(7, '0')}`)
  }

  test('ends the command without an error when its reader goes away', async () => {
    const server = await serve()
    plantMany(3_000)
    for (const beside of [true, false]) {
      if (!beside) await stop(server)
      const { stdout, stderr } = spawnSync(
        'bash',
        [
          '-c',
          `"$0" "$1" reconcile --json --data-dir "$2" | head -1; echo "\${PIPESTATUS[0]}"`,
          process.execPath,
          CLI,
          data,
        ],
        { encoding: 'utf8' },
      )
      const [finding = '', status] = lines(stdout)
      expect(JSON.parse(finding)).toMatchObject({ finding: { type: 'unknown' } })
      expect([status, stderr]).toEqual(['141', ''])
    }
    // The server has noticed it, continues, and logs no warning.
    expect(server.output.err).not.toMatch(/Warning|unhandled/i)
  })

  test('has no colours and no progress bar, and escapes control characters in names', async () => {
    const server = await serve()
    await server.request('PUT', `/operations/${newId()}`, {
      headers: { 'X-Owner': 'a\u009b31m' },
      body: JSON.stringify({ file: { name: 'x\u001b[2Jy', size: 5, type: '' } }),
    })
    mkdirSync(join(data, 'blobs/blobs'), { recursive: true })
    writeFileSync(join(data, 'blobs/blobs', 'a\u001b[31m\nb'), '')
    const outputs = [await landfall('operations', 'list'), await landfall('reconcile'), await landfall('doctor')]
    for (const { out, err } of outputs) {
      // oxlint-disable-next-line no-control-regex -- that is what must not be there
      expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
      expect(err).toBe('')
    }
    expect(outputs[1]?.out).toContain('foreign         blobs/a\\u{001b}[31m\\u{000a}b')
    await stop(server)
  })

  test('is held back by the server while a slow reader falls behind, without a warning', async () => {
    const server = await serve()
    plantMany(3_000)
    const { child, exited } = start(['reconcile', '--json', '--data-dir', data])
    // While the command is stopped it reads nothing, so the socket fills up repeatedly.
    for (let n = 0; n < 15; n += 1) {
      child.kill('SIGSTOP')
      execFileSync('sleep', ['0.05'])
      child.kill('SIGCONT')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const { code, out } = await exited
    expect([code, lines(out).length]).toEqual([1, 3_001])
    expect(server.output.err).not.toContain('MaxListeners')
  })
})

test('Ctrl-C ends reconcile by the signal, and the server stops that work and continues to serve', async () => {
  const server = await serve()
  for (let n = 0; n < 4_000; n += 1) plant(`0190000000007000800000000${n.toString(16).padStart(7, '0')}`)
  const before = stored().length
  const { child, output, exited } = start(['reconcile', '--apply', '--force', '--data-dir', data])
  await eventually(
    async () => output.out,
    (text) => text.includes('-> quarantined'),
    60_000,
  )
  child.kill('SIGINT')
  expect(await exited).toMatchObject({ code: null, signal: 'SIGINT' })
  // The work stops before everything is done. Some blobs are in quarantine, the others are in their place.
  const aside = (): number => readdirSync(join(data, 'blobs/quarantine')).length
  let seen = -1
  await eventually(
    async () => {
      const same = aside() === seen
      seen = aside()
      await new Promise((resolve) => setTimeout(resolve, 200))
      return same
    },
    (same) => same,
    30_000,
  )
  expect(seen).toBeGreaterThan(0)
  expect(seen).toBeLessThan(before)
  expect(stored().length + seen).toBe(before)
  expect((await server.declare(newId(), 5)).status).toBe(201)
  await stop(server)
})
