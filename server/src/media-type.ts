import { fileTypeFromBuffer, supportedMimeTypes } from 'file-type'
import { accepts } from './kinds.js'

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
  const claimed = declared.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (accept !== null && supportedMimeTypes.has(claimed)) return { ok: false, detail: `the content is not ${claimed}` }
  return { ok: true, type: declared === '' ? 'application/octet-stream' : declared }
}
