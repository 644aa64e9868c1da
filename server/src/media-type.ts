import { fileTypeFromBuffer, supportedMimeTypes } from 'file-type'
import { accepts } from './kinds.js'

const UNKNOWN = 'application/octet-stream'
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const PARAMETER = `${TOKEN}=(?:${TOKEN}|"(?:[ \\t!#-\\[\\]-~]|\\\\[ \\t!-~])*")`
// Each blank can be matched in one way only: with two, a client's text of 64 bytes takes a minute to be refused.
const MEDIA_TYPE = new RegExp(`^${TOKEN}/${TOKEN}(?:[ \\t]*;(?:[ \\t]*(?:${PARAMETER}|$))?)*$`)

/** What can stand in a `Content-Type` header. @see RFC 9110 section 8.3.1 */
export const isMediaType = (text: string): boolean => MEDIA_TYPE.test(text)

export type TypeVerdict = { readonly ok: true; readonly type: string } | { readonly ok: false; readonly detail: string }

/**
 * The media type of stored bytes: by their content where it tells, else as declared.
 *
 * Where a kind accepts only some types, a file that claims a type with a known signature and does not bear it is not
 * acceptable: that is how a page of HTML comes in as an image.
 */
export async function judgeType(
  head: Uint8Array,
  declared: string,
  accept: readonly string[] | null,
): Promise<TypeVerdict> {
  const found = (await fileTypeFromBuffer(head))?.mime
  if (found !== undefined)
    return accepts(accept, found) ? { ok: true, type: found } : { ok: false, detail: `the content is ${found}` }
  if (declared !== '' && !isMediaType(declared))
    return accepts(accept, UNKNOWN)
      ? { ok: true, type: UNKNOWN }
      : { ok: false, detail: 'the declared type is no media type' }
  const claimed = declared.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (accept !== null && supportedMimeTypes.has(claimed)) return { ok: false, detail: `the content is not ${claimed}` }
  return { ok: true, type: declared === '' ? UNKNOWN : declared }
}
