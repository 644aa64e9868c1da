import { styleText } from 'node:util'

/** Standard output is for results; what is only for people who wait goes to standard error. */
export const line = (text = ''): void => void process.stdout.write(`${text}\n`)
export const json = (value: unknown): void => line(JSON.stringify(value))

/** Columns as wide as their widest cell; the last one is not padded. */
export function table(rows: readonly (readonly string[])[]): void {
  const widths = rows.reduce<number[]>(
    (all, row) => row.map((cell, column) => Math.max(all[column] ?? 0, cell.length)),
    [],
  )
  for (const row of rows)
    line(row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  '))
}

export const time = (at: number | null): string => (at === null ? '-' : new Date(at).toISOString())

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const
export function bytes(count: number): string {
  const power = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10))
  return `${power === 0 ? count : (count / 1024 ** power).toFixed(1)} ${UNITS[power] ?? 'B'}`
}

type Format = Parameters<typeof styleText>[0]
/** Colours where a person reads them. */
export const styled = (format: Format, text: string): string =>
  process.stdout.isTTY && process.env['NO_COLOR'] === undefined ? styleText(format, text) : text
