import { styleText } from 'node:util'

/** Standard output is for results. Remarks for the person who waits go to standard error. */
export const line = (text = ''): void => void process.stdout.write(`${text}\n`)
export const json = (value: unknown): void => line(JSON.stringify(value))
export const aside = (text: string): void => void process.stderr.write(`${text}\n`)

/** Names and messages come from any source: none may break a line or send control characters to a terminal. */
export const printable = (text: string): string =>
  text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}}`,
  )

/**
 * Columns are as wide as their widest cell. Numbers are aligned to the right, and the last column is not padded. The
 * first row is the heading. `continued`: the heading was printed with earlier rows.
 */
export function table(rows: readonly (readonly string[])[], { continued = false } = {}): void {
  const printed = rows.map((row) => row.map(printable))
  const columns = printed[0]?.map((_, column) => printed.map((row) => row[column] ?? '')) ?? []
  const widths = columns.map((cells) => cells.reduce((widest, { length }) => Math.max(widest, length), 0))
  const numeric = columns.map((cells) => cells.slice(1).every((cell) => /^\d+$/.test(cell)))
  const pad = (cell: string, column: number): string => {
    if (numeric[column] === true) return cell.padStart(widths[column] ?? 0)
    return column === columns.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)
  }
  for (const row of continued ? printed.slice(1) : printed) line(row.map(pad).join('  '))
}

/** Prints one fact per line. */
export function facts(rows: readonly (readonly [string, string])[]): void {
  const width = Math.max(...rows.map(([name]) => name.length))
  for (const [name, value] of rows) line(`${name.padEnd(width)}  ${printable(value)}`)
}

export const time = (at: number | null): string => (at === null ? '-' : new Date(at).toISOString())

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const
export function bytes(count: number): string {
  const power = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10))
  return `${power === 0 ? count : (count / 1024 ** power).toFixed(1)} ${UNITS[power] ?? 'B'}`
}

type Format = Parameters<typeof styleText>[0]
/** Colours only if a person reads them. */
export const styled = (format: Format, text: string): string =>
  process.stdout.isTTY && process.env['NO_COLOR'] === undefined ? styleText(format, text) : text
