import { fileTypeFromBuffer, supportedMimeTypes } from 'file-type'
import { accepts } from './kind.js'
import { essenceOf } from './media-names.js'

const UNKNOWN = 'application/octet-stream'
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const PARAMETER = `${TOKEN}=(?:${TOKEN}|"(?:[ \\t!#-\\[\\]-~]|\\\\[ \\t!-~])*")`
// Each blank can be matched in only one way. If there were two, refusing a text of 64 bytes would take a minute.
const MEDIA_TYPE = new RegExp(`^${TOKEN}/${TOKEN}(?:[ \\t]*;(?:[ \\t]*(?:${PARAMETER}|$))?)*$`)

/** Whether a text may be the value of a `Content-Type` header. @see RFC 9110 section 8.3.1 */
export const isMediaType = (text: string): boolean => MEDIA_TYPE.test(text)

export type TypeVerdict = { readonly ok: true; readonly type: string } | { readonly ok: false; readonly detail: string }

/** Formats with a signature that `file-type` knows, except those whose files may lack it. */
const SIGNED = new Set([...supportedMimeTypes].map(essenceOf))
for (const type of SIGNED)
  if (type.startsWith('text/') || ['application/xml', 'model/stl'].includes(type)) SIGNED.delete(type)

/** An HTML page can be declared as any of these. */
const MEDIA = /^(?:image|audio|video|font)\//

/**
 * The media type of stored bytes: by their content if that reveals it, otherwise as declared.
 *
 * The type that is stored is one that the kind accepts. If the content has no signature, a declared type counts only if
 * files of that type have none either. Otherwise an HTML page could be stored as an image.
 */
export async function judgeType(
  head: Uint8Array,
  declared: string,
  accept: readonly string[] | null,
): Promise<TypeVerdict> {
  const claimed = isMediaType(declared) ? declared : UNKNOWN
  const found = (await fileTypeFromBuffer(head))?.mime
  if (found !== undefined) {
    const type = [isWithin(claimed, found) ? claimed : found, found].find((named) => accepts(accept, named))
    return type === undefined ? { ok: false, detail: `the content is ${found}` } : { ok: true, type }
  }
  if (accept === null) return { ok: true, type: claimed }
  if (!accepts(accept, claimed)) return { ok: false, detail: whyUnknown(declared) }
  const essence = essenceOf(claimed)
  const named = accept.some((pattern) => ['*/*', essence].includes(essenceOf(pattern)))
  return SIGNED.has(essence) || (MEDIA.test(essence) && !named)
    ? { ok: false, detail: `the content is not ${essence}` }
    : { ok: true, type: claimed }
}

function whyUnknown(declared: string): string {
  if (declared === '') return `neither the content nor a declared type shows what it is: ${UNKNOWN}`
  return isMediaType(declared) ? `the content is not of an accepted type` : 'the declared type is no media type'
}

/** Older Office documents. All of them begin with the signature of the container format that they share. */
const COMPOUND_FILES = new Set([
  'application/msword',
  'application/vnd.ms-excel',
  'application/vnd.ms-powerpoint',
  'application/vnd.ms-outlook',
  'application/vnd.ms-project',
  'application/vnd.visio',
  'application/x-msi',
])

/** Whether the declared type is more specific than the container format whose signature was found. */
function isWithin(claimed: string, found: string): boolean {
  const essence = essenceOf(claimed)
  switch (essenceOf(found)) {
    case 'application/xml':
      return essence.endsWith('+xml')
    case 'application/zip':
      return essence.endsWith('+zip') && !SIGNED.has(essence)
    case 'application/x-cfb':
      return COMPOUND_FILES.has(essence)
    case 'application/ogg':
      return essence === 'audio/ogg' || essence === 'video/ogg'
    // Recorded in a browser: the container is the same without a picture.
    case 'video/webm':
    case 'video/mp4':
    case 'video/matroska':
    case 'video/3gpp':
      return essence === essenceOf(found).replace('video/', 'audio/')
    default:
      return false
  }
}
