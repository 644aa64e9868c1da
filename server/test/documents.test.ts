/** The tables of the reference pages say what the code says: nothing is missing in them, and nothing is too much. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { consequenceOf, type Problem, problem, type ProblemCode, PROBLEMS } from '@landfall/shared'
import * as v from 'valibot'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { codesIn, codesOf, type PublicTypes, type Row, tablesIn, typesIn } from '../../shared/test/reference-pages.js'
import { OPTIONS as FILE_BLOBS } from '../src/blobs/file/file-blobs.js'
import { OPTIONS as S3_BLOBS } from '../src/blobs/s3/s3-blobs.js'
import { kind, type MetricEvent, nodeServerOptions, reject, UploadError, type UploadErrorCode } from '../src/index.js'
import { OPTIONS as KIND } from '../src/kinds/kind.js'
import { OPTIONS as SERIALIZED_LIBSQL } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { openMetrics } from '../src/metrics.js'
import { GUARD_OPTIONS, SERVE_OPTIONS } from '../src/http/node-server.js'
import { FILE_SETTINGS, readSettings, SECRET_SETTINGS, SETTING_NAMES, type Settings } from '../src/program/settings.js'
import { KINDS, UPLOADS_OPTIONS } from '../src/uploads-options.js'
import { OPTIONS as STANDARD_WEBHOOK } from '../src/effects/webhook.js'
import { content, eventually, newId, startServer, type TestServer } from './harness.js'
import { CLI } from './program.js'

const pathOf = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url))
const publicTypes = (path: string): PublicTypes => typesIn(pathOf('tsconfig.json'), pathOf(path))

const page = (name: string) => tablesIn(new URL(`../docs/${name}.md`, import.meta.url))

let types: PublicTypes
let metricsTypes: PublicTypes
beforeAll(() => {
  types = publicTypes('src/index.ts')
  metricsTypes = publicTypes('src/metrics.ts')
})
afterAll(() => {
  types.close()
  metricsTypes.close()
})

/** A default as a page has it, without the quotes that only a program needs. */
const settingValue = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

/** A value as a program writes it. */
function literal(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return JSON.stringify(value)
  return `{ ${Object.entries(value)
    .map(([name, member]) => `${name}: ${literal(member)}`)
    .join(', ')} }`
}

/** The rows of all tables that have this column. */
const rowsWith = (tables: ReadonlyMap<string, readonly Row[]>, column: string): Row[] =>
  [...tables.values()].flat().filter((row) => column in row)

/** Bytes and milliseconds are in the names. */
function unitOf(name: string): string | null {
  if (/(Ms|_MS)$/.test(name)) return 'ms'
  if (/(Bytes|_BYTES)$/.test(name)) return 'bytes'
  return name.endsWith('Seconds') ? 's' : null
}

describe('settings.md', () => {
  const tables = page('settings')
  const rows = rowsWith(tables, 'setting')
  const rowOf = (name: string): Row => rows.find((row) => row['setting'] === `\`${name}\``) ?? {}
  const needed = { LANDFALL_OWNER_HEADER: 'X-User' }
  const flagOf = (name: string): string => `--${name.slice('LANDFALL_'.length).toLowerCase().replaceAll('_', '-')}`

  test('has every setting once, and no other', () => {
    expect(rows.flatMap((row) => codesIn(row['setting'])).toSorted()).toEqual(SETTING_NAMES.toSorted())
  })

  test('says of each its default and its unit', () => {
    const settings = readSettings(needed)
    const facts = SETTING_NAMES.map((name) => {
      const value = settings[name]
      const isNone = value === undefined || value === '' || (Array.isArray(value) && value.length === 0)
      const isRequired = name in needed
      return [name, isRequired ? 'required' : isNone ? 'none' : `\`${settingValue(value)}\``, unitOf(name) ?? '']
    })
    expect(SETTING_NAMES.map((name) => [name, rowOf(name)['default'], rowOf(name)['unit']])).toEqual(facts)
    expect(() => readSettings({})).toThrow(/^LANDFALL_OWNER_HEADER: required[^\n]*$/)
    expect(rows.filter((row) => row['effect'] === '')).toEqual([])
  })

  const refusal = (name: string, value: string): string | null => {
    try {
      readSettings({ ...needed, [name]: value })
      return null
    } catch (error) {
      return (error as Error).message
    }
  }

  test('says of each what it may be', () => {
    for (const name of SETTING_NAMES) expectType(name, rowOf(name)['type'] ?? '')
  })

  function expectType(name: string, type: string): void {
    const isNumber = refusal(name, 'many')?.includes(`${name}: a whole number`) === true
    expect([name, type.startsWith('whole number')]).toEqual([name, isNumber])
    if (isNumber) {
      const [, least, most] = /^whole number(?: from (?=\d+$)|, )(\d+)(?: to (\d+))?$/.exec(type) ?? []
      const largest = Number(most ?? Number.MAX_SAFE_INTEGER)
      for (const fits of [Number(least), largest]) expect(refusal(name, String(fits))).toBeNull()
      expect(refusal(name, String(largest + 1))).toContain(`${name}: at most ${largest}`)
      if (Number(least) > 0) expect(refusal(name, String(Number(least) - 1))).toContain(`${name}: at least ${least}`)
    }
    // One of a few words.
    const words = codesIn(type)
    if (words.length > 0 && words.every((word) => /^[a-z]+$/.test(word))) {
      for (const word of words) expect(refusal(name, word)).toBeNull()
      expect(refusal(name, 'perhaps')).toBe(`${name}: ${words.join(', ').replace(/, (?=\w+$)/, ' or ')}`)
    }
  }

  test('has the settings that a file can hold, and the secrets, which have no flag', () => {
    const files = tables.get('Secrets in files')
    expect(codesOf(files, 'variable').toSorted()).toEqual([...FILE_SETTINGS].map((name) => `${name}_FILE`).toSorted())
    expect(codesOf(files, 'the file holds')).toEqual(
      codesOf(files, 'variable').map((name) => name.slice(0, -'_FILE'.length)),
    )
    expect(codesOf(files, 'flag')).toEqual(codesOf(files, 'variable').map(flagOf))
    for (const name of SETTING_NAMES) {
      const isSecret = SECRET_SETTINGS.has(name)
      expect(rowOf(name)['flag']).toBe(isSecret ? 'none' : `\`${flagOf(name)}\``)
      expect(rowOf(name)['type'] === 'secret').toBe(isSecret)
    }
  })

  const dataSettings = ['LANDFALL_DATA_DIR', 'LANDFALL_DATABASE_URL', 'LANDFALL_DATABASE_CONNECTIONS'] as const

  let commands: Awaited<ReturnType<typeof readCommands>>
  beforeAll(async () => {
    commands = await readCommands([])
  }, 180_000)

  test('has every command, with the settings that each takes', () => {
    const documented = tables.get('Commands') ?? []
    expect(codesOf(documented, 'command').toSorted()).toEqual([...commands.keys()].toSorted())
    for (const row of documented) {
      const [name = ''] = codesIn(row['command'])
      const names: readonly (keyof Settings)[] = row['settings'] === 'all' ? SETTING_NAMES : dataSettings
      const flags = names
        .flatMap((each) => [each, ...(FILE_SETTINGS.has(each) ? [`${each}_FILE`] : [])])
        .filter((each) => !(SECRET_SETTINGS as ReadonlySet<string>).has(each))
        .map(flagOf)
      expect([name, commands.get(name)?.settings.toSorted()]).toEqual([name, flags.toSorted()])
    }
  })

  test('has every option of every command, with its value and its default', () => {
    const shown = [...commands].filter(([, { options }]) => options.length > 0)
    const headings = [...tables.keys()].filter((heading) => heading.startsWith('Options of '))
    expect(headings.toSorted()).toEqual(shown.map(([name]) => `Options of \`${name}\``).toSorted())
    for (const [name, { options }] of shown) {
      const documented = (tables.get(`Options of \`${name}\``) ?? []).map((row) => ({
        option: row['option'],
        takesValue: row['value'] !== '',
        default: codesIn(row['default'])[0] ?? null,
      }))
      expect([name, documented.toSorted(byOption)]).toEqual([name, options.toSorted(byOption)])
    }
  })

  test('has no table that is not compared', () => {
    const compared = [...tables].filter(
      ([heading, [row]]) =>
        row !== undefined &&
        ('setting' in row || ['Secrets in files', 'Commands'].includes(heading) || heading.startsWith('Options of ')),
    )
    expect(compared.length).toBe(tables.size)
  })
})

interface ShownOption {
  readonly option: string
  readonly takesValue: boolean
  readonly default: string | null
}
const byOption = (a: { option?: string | undefined }, b: { option?: string | undefined }): number =>
  (a.option ?? '') < (b.option ?? '') ? -1 : 1

/** What `--help` of the built program says: the commands that do something, the settings of each, and its own options. */
async function readCommands(
  path: readonly string[],
): Promise<Map<string, { settings: string[]; options: ShownOption[] }>> {
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, ...path, '--help'], {
    env: { PATH: process.env['PATH'] },
  })
  const section = (name: string): string => new RegExp(`^${name}:\\n((?: {2}.*\\n?)+)`, 'm').exec(stdout)?.[1] ?? ''
  const entries = (name: string): string[] =>
    section(name)
      .split(/\n(?= {2}\S)/)
      .map((entry) => entry.trim().replaceAll(/\s+/g, ' '))
      .filter((entry) => entry !== '')
  const below = entries('Commands')
    .map((entry) => entry.split(' ', 1)[0] ?? '')
    .filter((name) => name !== 'help')
  if (below.length > 0) {
    const all = await Promise.all(below.map((name) => readCommands([...path, name])))
    return new Map(all.flatMap((commands) => [...commands]))
  }
  const settings: string[] = []
  const options: ShownOption[] = []
  for (const entry of entries('Options')) {
    const [, flag = '', value] = /^(?:-\w, )?(--[\w-]+)(?: <([^>]+)>)?/.exec(entry) ?? []
    if (/\[LANDFALL_\w+\]$/.test(entry)) settings.push(flag)
    else if (flag !== '--help')
      options.push({
        option: `\`${flag}\``,
        takesValue: value !== undefined,
        default: /\(default: "(.*)"\)$/.exec(entry)?.[1] ?? null,
      })
  }
  return new Map([[['landfall', ...path].join(' '), { settings, options }]])
}

describe('options.md', () => {
  const tables = page('options')
  const checked: Readonly<Record<string, v.ObjectEntries>> = {
    createUploads: { ...UPLOADS_OPTIONS, ...KINDS },
    kind: KIND,
    fileBlobs: FILE_BLOBS,
    s3Blobs: S3_BLOBS,
    serializedLibsql: SERIALIZED_LIBSQL,
    standardWebhook: STANDARD_WEBHOOK,
    serveUploads: SERVE_OPTIONS,
    guardServer: GUARD_OPTIONS,
  }

  test.each(Object.keys(checked))('has every option of %s, what it may be, its default and its unit', (name) => {
    const documented = (tables.get(name) ?? []).map((row) => {
      const [option = ''] = codesIn(row['option'])
      const fallback = row['default'] ?? ''
      return {
        option,
        mustBe: row['must be'],
        default: fallback === 'required' ? fallback : (codesIn(fallback)[0] ?? 'no value'),
        unit: row['unit'],
      }
    })
    const real = optionsOf(checked[name] ?? {}).map((option) => ({
      ...option,
      // Some are bytes by their meaning alone.
      unit: unitOf(option.option) ?? (/partsize$/i.test(option.option) ? 'bytes' : ''),
    }))
    expect(documented).toEqual(real)
    expect(tables.get(name)?.filter((row) => row['effect'] === '')).toEqual([])
  })

  test('has the options of openMetrics, which adds numbers of the process only where it is asked to', async () => {
    expect(codesOf(tables.get('openMetrics'), 'option')).toEqual(metricsTypes.members('OpenMetricsOptions'))
    expect(codesOf(tables.get('openMetrics'), 'default')).toEqual(['false'])
    expect((await openMetrics().expose()).text).not.toContain('process_')
    expect((await openMetrics({ process: true }).expose()).text).toContain('process_')
  })

  test('has what nodeServerOptions answers', () => {
    const rows = tables.get('nodeServerOptions') ?? []
    const documented = rows.map((row) => [codesIn(row['member'])[0], codesIn(row['value'])[0]])
    expect(documented).toEqual(Object.entries(nodeServerOptions()).map(([name, value]) => [name, literal(value)]))
  })

  test.each([
    ['uploads.close', 'Uploads', 'close'],
    ['uploads.runOnce', 'Uploads', 'runOnce'],
    ['uploads.operator.list', 'Operator', 'list'],
    ['uploads.operator.forgetOwner', 'Operator', 'forgetOwner'],
    ['uploads.operator.reconcile', 'Operator', 'reconcile'],
  ])('has every option of %s', (heading, name, method) => {
    const rows = tables.get(heading) ?? []
    expect(codesOf(rows, 'option').toSorted()).toEqual(types.parameters(name, method).toSorted())
    expect(rows.map((row) => row['unit'])).toEqual(codesOf(rows, 'option').map((option) => unitOf(option) ?? ''))
  })

  test('has every reason for which a node is not ready', () => {
    expect(codesOf(tables.get('healthRoutes'), 'in `failed`').toSorted()).toEqual(types.words('HealthCheck').toSorted())
  })

  test('has no table that is not compared', () => {
    const others = ['openMetrics', 'nodeServerOptions', 'healthRoutes']
    const compared = [
      ...Object.keys(checked),
      ...others,
      ...[...tables.keys()].filter((name) => name.startsWith('uploads.')),
    ]
    expect([...tables.keys()].toSorted()).toEqual(compared.toSorted())
    expect([...tables.keys()].filter((name) => name.startsWith('uploads.')).length).toBe(5)
  })
})

interface Option {
  readonly option: string
  readonly mustBe: string
  /** `required`, a value, or `no value` where the code has none as data. */
  readonly default: string
}

/** Options within an option by their path. */
function optionsOf(entries: v.ObjectEntries, path = ''): Option[] {
  return Object.entries(entries).flatMap(([name, schema]) => {
    const inner = innermost(schema)
    const option = path + name
    const within = 'entries' in inner ? optionsOf(inner.entries as v.ObjectEntries, `${option}.`) : []
    const isGroup = 'entries' in inner && !isNullable(schema)
    return [...(isGroup ? [] : [{ option, mustBe: mustBe(schema), default: defaultOf(schema) }]), ...within]
  })
}

type Schema = v.ObjectEntries[string]
const wrapped = (schema: Schema): Schema | null => ('wrapped' in schema ? schema.wrapped : null)
const innermost = (schema: Schema): Schema => {
  const inner = wrapped(schema)
  return inner === null ? schema : innermost(inner)
}
const isNullable = (schema: Schema): boolean => {
  const inner = wrapped(schema)
  return schema.type === 'nullable' || (inner !== null && isNullable(inner))
}

/** As the message says it to whoever gives something that nothing may be. */
function mustBe(schema: Schema): string {
  const inner = innermost(schema)
  const { issues } = v.safeParse(inner, Symbol('nothing'))
  const said =
    'entries' in inner ? 'an object with options' : /^must be (.*), not /.exec(issues?.[0].message ?? '')?.[1]
  const words = String(said).replace(` to ${Number.MAX_SAFE_INTEGER}`, '')
  return isNullable(schema) ? `${words}, or null` : words
}

function defaultOf(schema: Schema): string {
  if (schema.type !== 'optional') return 'required'
  const value: unknown = v.getDefault(schema)
  return value === undefined || typeof value === 'function' ? 'no value' : literal(value)
}

describe('problems.md', () => {
  const tables = page('problems')
  let server: TestServer | undefined
  afterEach(async () => {
    await server?.close()
    server = undefined
  })

  test('has every problem code, with its status and what it asks of a client', () => {
    const rows = tables.get('Problem codes') ?? []
    const documented = rows.map((row) => [codesIn(row['code']), Number(row['status']), codesIn(row['consequence'])])
    const real = PROBLEM_CODES.map((code) => [[code], PROBLEMS[code].status, [consequenceOf(problem(code))]])
    expect(documented.toSorted(byJson)).toEqual(real.toSorted(byJson))
    expect(rows.filter((row) => row['when it is answered'] === '' || row['what a client does'] === '')).toEqual([])
    const consequences = new Set(PROBLEM_CODES.map((code) => consequenceOf(problem(code))))
    expect(codesOf(tables.get('What a problem asks of the client'), 'consequence').toSorted()).toEqual(
      [...consequences].toSorted(),
    )
  })

  const tus = { 'Tus-Resumable': '1.0.0' }
  const opaque = { 'Content-Type': 'application/offset+octet-stream' }
  const plain = kind({ onReference: async () => null })

  const others: readonly [code: string, status: number, ask: () => Promise<Response>][] = [
    [
      'invalid-request',
      404,
      async () => {
        server = await startServer({ file: plain })
        return server.request('DELETE', '/files/no-uuid', { headers: tus })
      },
    ],
    [
      'invalid-request',
      412,
      async () => {
        server = await startServer({ file: plain })
        return server.request('POST', '/files', { headers: { 'Upload-Length': '5' } })
      },
    ],
    [
      'invalid-request',
      415,
      async () => {
        server = await startServer({ file: plain })
        const headers = { ...tus, 'Upload-Offset': '0' }
        const path = `/files/${newId()}`
        const encoded = { ...headers, ...opaque, 'Content-Encoding': 'gzip' }
        expect(await server.request('PATCH', path, { headers: encoded, body: 'abc' })).toMatchObject({ status: 415 })
        return server.request('PATCH', path, { headers: { ...headers, 'Content-Type': 'text/plain' }, body: 'abc' })
      },
    ],
    [
      'already-referenced',
      403,
      async () => {
        server = await startServer({ file: plain })
        const id = newId()
        await server.declare(id, { size: 5 })
        await server.patch(id, 0, content(5))
        return server.request('DELETE', `/files/${id}`, { headers: tus })
      },
    ],
    [
      'expired',
      422,
      async () => {
        const strict = kind({ requireDigest: true, onReference: async () => null })
        server = await startServer({ file: strict }, { digestGraceMs: 10, expiresAfterMs: 300 })
        const { declare, patch, get, uploads } = server
        const id = newId()
        await declare(id, { size: 5 }, { digest: 'pending' })
        await patch(id, 0, content(5))
        await eventually(
          async () => {
            await uploads.runOnce()
            return get(id)
          },
          ({ recoveryPoint }) => recoveryPoint === 'rejected',
        )
        return patch(id, 5, null)
      },
    ],
    [
      'rejected',
      410,
      async () => {
        const picky = kind({ onReference: async () => reject('no-cats') })
        server = await startServer({ file: picky }, { retention: { finalMs: 0, effectsMs: 0 } })
        const { declare, patch, request, uploads } = server
        const id = newId()
        await declare(id, { size: 5 })
        await patch(id, 0, content(5))
        await eventually(
          async () => {
            await uploads.runOnce()
            return (await request('GET', `/operations/${id}`)).status
          },
          (status) => status === 410,
        )
        return request('GET', `/operations/${id}`)
      },
    ],
  ]

  test('has every other status with which a code is answered', () => {
    const rows = tables.get('The same code with another status') ?? []
    const documented = rows.map((row) => [codesIn(row['code'])[0], Number(row['status'])])
    expect(documented.toSorted(byJson)).toEqual(others.map(([code, status]) => [code, status]).toSorted(byJson))
  })

  test.each(others)('%s is answered with %i too', async (code, status, ask) => {
    const response = await ask()
    expect([response.status, await response.json()]).toMatchObject([status, { code, status }])
  })

  test('has every error code, with the answer to a request that fails with it', async () => {
    const rows = tables.get('Error codes') ?? []
    const codes = types.words('UploadErrorCode') as UploadErrorCode[]
    expect(codesOf(rows, 'code').toSorted()).toEqual(codes.toSorted())
    let thrown: UploadErrorCode = 'setup'
    server = await startServer(
      { file: plain },
      {
        authenticate: () => {
          throw new UploadError(thrown, 'of a test')
        },
      },
    )
    for (const row of rows) {
      thrown = codesIn(row['code'])[0] as UploadErrorCode
      const response = await server.request('GET', '/operations?open')
      const { code } = (await response.json()) as Problem
      expect([thrown, `${response.status} \`${code}\``]).toEqual([thrown, row['answer']])
    }
  })

  test('stalled is what an operation says of itself, and never an answer of its own', async () => {
    const broken = kind({ onReference: () => Promise.reject(new Error('of a test')) })
    server = await startServer({ file: broken }, { maxAttempts: 1 })
    const { declare, patch, get, request, uploads } = server
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    await eventually(
      async () => {
        await uploads.runOnce()
        return get(id)
      },
      ({ stalled }) => stalled,
    )
    expect(await get(id)).toMatchObject({ status: 200, problem: { code: 'stalled', status: 503 } })
    expect(await declare(id, { size: 5 })).toMatchObject({ status: 200, problem: { code: 'stalled' } })
    const answers = await Promise.all([
      patch(id, 5, null),
      patch(id, 5, null, { stock: true }),
      server.head(id),
      request('GET', `/operations/${id}/prefix`),
      request('GET', `/files/${id}`),
      request('GET', '/operations?open'),
    ])
    expect(answers.map(({ status }) => status)).toEqual([204, 204, 200, 200, 404, 200])
  }, 60_000)

  test('has no table that is not compared', () => {
    expect([...tables.keys()]).toEqual([
      'What a problem asks of the client',
      'Problem codes',
      'The same code with another status',
      'Error codes',
    ])
  })
})

const PROBLEM_CODES = Object.keys(PROBLEMS) as ProblemCode[]
const byJson = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)

describe('metrics.md', () => {
  const tables = page('metrics')
  const rows = rowsWith(tables, 'type')

  /** One of each: a metric without a fixed set of labels shows them only when something was counted. */
  const EVENTS: readonly MetricEvent[] = [
    { type: 'reached', point: 'declared' },
    { type: 'finalised', lagMs: 1 },
    { type: 'lease-lost' },
    { type: 'write-fenced', by: 'holder' },
    { type: 'bytes-accepted', bytes: 1 },
    { type: 'effect-settled', outcome: 'delivered' },
    { type: 'store-call', call: 'append', outcome: 'ok', tookMs: 1 },
    { type: 'store-request', name: 'UploadPart', outcome: 'ok', tookMs: 1 },
  ]

  test('counts one of each event here', () => {
    const known = types.variants('MetricEvent').flatMap(({ type = [] }) => type)
    expect(EVENTS.map(({ type }) => type).toSorted()).toEqual([...new Set(known)].toSorted())
  })

  test('has every metric with its type and its labels', async () => {
    const metrics = openMetrics()
    for (const event of EVENTS) metrics.count(event)
    const real = familiesIn((await metrics.expose()).text)
    const documented = rows.map((row) => ({
      name: codesIn(row['metric'])[0],
      type: row['type'],
      labels: codesIn(row['labels']),
    }))
    expect(documented.toSorted(byJson)).toEqual(
      real.map(({ name, type, labels }) => ({ name, type, labels: Object.keys(labels) })).toSorted(byJson),
    )
    expect(rows.filter((row) => row['meaning'] === '')).toEqual([])
  })

  test('has the values of every label, where they are known from the start', async () => {
    const untouched = new Map(familiesIn((await openMetrics().expose()).text).map((family) => [family.name, family]))
    const values = tables.get('Label values') ?? []
    const labels = rows.flatMap((row) => codesIn(row['labels']).map((label) => [codesIn(row['metric'])[0], label]))
    const documented = values.map((row) => [codesIn(row['metric'])[0], codesIn(row['label'])[0]])
    expect(documented.toSorted(byJson)).toEqual(labels.toSorted(byJson))
    for (const row of values) {
      const [metric = ''] = codesIn(row['metric'])
      const [label = ''] = codesIn(row['label'])
      const known = untouched.get(metric)?.labels[label]
      expect([metric, row['values'] === 'any' ? undefined : codesIn(row['values'])]).toEqual([metric, known])
    }
  })

  test('has no table that is not compared', () => {
    expect([...tables.keys()]).toEqual(['What one process has done', 'What is in the database', 'Label values'])
  })
})

interface Family {
  readonly name: string
  readonly type: string
  /** The values of each label that the samples have. */
  readonly labels: Readonly<Record<string, readonly string[]>>
}

/** The families of an OpenMetrics text; a counter by the name of its samples. */
function familiesIn(text: string): Family[] {
  const lines = text.split('\n')
  return [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, family = '', type = '']) => {
    const name = type === 'counter' ? `${family}_total` : family
    const labels: Record<string, string[]> = {}
    for (const line of lines) {
      const [, sample, given = ''] = /^([a-z_]+)(?:\{(.*)\})? /.exec(line) ?? []
      if (sample !== name && sample !== `${family}_bucket`) continue
      for (const [, label = '', value = ''] of given.matchAll(/(\w+)="([^"]*)"/g)) {
        // The bounds of a histogram belong to its type.
        if (label !== 'le') labels[label] = [...new Set([...(labels[label] ?? []), value])]
      }
    }
    return { name, type, labels }
  })
}
