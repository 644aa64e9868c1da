import type { Course } from './course.js'

/** The results of one fault for both systems. */
export interface Row {
  readonly fault: string
  readonly landfall: readonly Course[]
  readonly peer: Course
}

/**
 * The words for a result. Bold marks what a client must never be told, and what a client was told although it is not
 * true, or is no longer true.
 */
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

/** The table in Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const lines = rows.map(({ fault, landfall, peer }) => {
    const ours = [...new Set(landfall.map((course) => wordsOf(course, true)))].join(' / ')
    return `| ${fault} | ${ours} | ${wordsOf(peer, false)} |`
  })
  return ['| fault | Landfall | @tus/server, @tus/s3-store |', '| --- | --- | --- |', ...lines].join('\n')
}
