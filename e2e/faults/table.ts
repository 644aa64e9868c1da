import type { Course } from './course.js'

/** What one fault did to both. */
export interface Row {
  readonly fault: string
  readonly landfall: readonly Course[]
  readonly peer: Course
}

/** Bold: what a client must never be told, and what it was told and is no longer so. */
function wordsOf({ told, stored, rows, references, effects, offsetFell, creations }: Course, isOurs: boolean): string {
  const words: string[] = []
  if (!told.success) words.push(`refused: ${told.why ?? ''}`)
  else if (stored !== 'right') words.push(`**success, ${stored === 'wrong' ? 'wrong bytes' : 'no object'}**`)
  else words.push(rows === 1 && (!isOurs || (references === 1 && effects === 1)) ? 'arrived, once' : '**success**')
  if (told.success !== (rows === 1)) words.push(`**${rows === 0 ? 'no row' : `rows: ${rows}`}**`)
  else if (rows === 1 && stored !== 'right') words.push('**a row of it**')
  if (offsetFell) words.push('**an acknowledged offset fell**')
  if (creations > 1) words.push(`begun ${creations} times`)
  return words.join(', ')
}

/** In Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const lines = rows.map(({ fault, landfall, peer }) => {
    const ours = [...new Set(landfall.map((course) => wordsOf(course, true)))].join(' / ')
    return `| ${fault} | ${ours} | ${wordsOf(peer, false)} |`
  })
  return ['| fault | Landfall | @tus/server, @tus/s3-store |', '| --- | --- | --- |', ...lines].join('\n')
}
