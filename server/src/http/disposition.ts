import { create } from 'content-disposition'

/**
 * A proxy refuses an answer whose head does not fit into its buffer. The buffer of nginx has 4 KiB; the name may use a
 * quarter of it.
 */
const MOST_BYTES = 1024

/**
 * The header `Content-Disposition`. A name of 500 Chinese characters takes 4.5 KB in it. Such a name is shortened until
 * the header fits into 1 KiB, and keeps its extension.
 *
 * @see RFC 6266
 */
export function dispositionOf(name: string, type: 'inline' | 'attachment'): string {
  const whole = create(name, { type })
  if (whole.length <= MOST_BYTES) return whole
  const extension = /\.[^.\s]{1,16}$/.exec(name)?.[0] ?? ''
  // By code points, so that no half of a surrogate pair remains.
  const stem = Array.from(extension === '' ? name : name.slice(0, -extension.length))
  const shortened = (length: number): string => create(stem.slice(0, length).join('') + extension, { type })
  let fits = 0
  for (let tooLong = stem.length; tooLong - fits > 1;) {
    const between = Math.floor((fits + tooLong) / 2)
    if (shortened(between).length <= MOST_BYTES) fits = between
    else tooLong = between
  }
  return shortened(fits)
}
