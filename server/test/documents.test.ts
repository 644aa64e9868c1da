/** The tables of the reference pages say what the code says: nothing is missing in them, and nothing is too much. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { codesIn, codesOf, type PublicTypes, type Row, tablesIn, typesIn } from '../../shared/test/reference-pages.js'
import { OPTIONS as FILE_BLOBS } from '../src/blobs/file.js'
import { OPTIONS as S3_BLOBS } from '../src/blobs/s3.js'
import { nodeServerOptions } from '../src/index.js'
import { OPTIONS as KIND } from '../src/kinds.js'
import { OPTIONS as SERIALIZED_LIBSQL } from '../src/ledger/serialized-libsql.js'
import { openMetrics } from '../src/metrics.js'
import { GUARD_OPTIONS, SERVE_OPTIONS } from '../src/node-server.js'
import { FILE_SETTINGS, readSettings, SECRET_SETTINGS, SETTING_NAMES, type Settings } from '../src/settings.js'
import { KINDS, UPLOADS_OPTIONS } from '../src/uploads-options.js'
import { OPTIONS as STANDARD_WEBHOOK } from '../src/webhook.js'
import { CLI } from './program.js'

const pathOf = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url))
const publicTypes = (path: string): PublicTypes => typesIn(pathOf('tsconfig.json'), pathOf(path))

const page = (name: string) => tablesIn(new URL(`../docs/${name}.md`, import.meta.url))

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
