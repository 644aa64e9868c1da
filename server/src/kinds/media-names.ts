/**
 * Different names of the same format. Browsers, operating systems and `file-type` disagree on them: Windows calls a ZIP
 * file `application/x-zip-compressed`, and Chromium calls an MKV file `video/x-matroska`.
 */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['application/javascript', 'text/javascript'],
  ['application/vnd.rar', 'application/x-rar-compressed'],
  ['application/x-gzip', 'application/gzip'],
  ['application/x-javascript', 'text/javascript'],
  ['application/x-pdf', 'application/pdf'],
  ['application/x-rar', 'application/x-rar-compressed'],
  ['application/x-zip', 'application/zip'],
  ['application/x-zip-compressed', 'application/zip'],
  ['audio/m4a', 'audio/mp4'],
  ['audio/mp3', 'audio/mpeg'],
  ['audio/vnd.wave', 'audio/wav'],
  ['audio/wave', 'audio/wav'],
  ['audio/x-aac', 'audio/aac'],
  ['audio/x-aiff', 'audio/aiff'],
  ['audio/x-flac', 'audio/flac'],
  ['audio/x-m4a', 'audio/mp4'],
  ['audio/x-mp3', 'audio/mpeg'],
  ['audio/x-wav', 'audio/wav'],
  ['image/jpg', 'image/jpeg'],
  ['image/pjpeg', 'image/jpeg'],
  ['image/vnd.microsoft.icon', 'image/x-icon'],
  ['image/x-ms-bmp', 'image/bmp'],
  ['image/x-png', 'image/png'],
  ['text/rtf', 'application/rtf'],
  ['text/x-vcard', 'text/vcard'],
  ['text/xml', 'application/xml'],
  ['video/avi', 'video/vnd.avi'],
  ['video/x-matroska', 'video/matroska'],
  ['video/x-msvideo', 'video/vnd.avi'],
])

/** A media type without its parameters, in lower case, under one name per format. */
export function essenceOf(type: string): string {
  const essence = type.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return ALIASES.get(essence) ?? essence
}

/**
 * SVG is a harmless image only where it runs no scripts. Opened as a document, it is a program of the user who uploaded
 * it.
 */
export const SVG = 'image/svg+xml'

const CAN_RUN = /^(?:text\/(?:html|xsl)|multipart\/.*|message\/rfc822|application\/xml-dtd|.*[/+]xml)$/

/** Whether a browser that shows such a file in place parses it as a document that can contain scripts. */
export const canRunScripts = (type: string): boolean => CAN_RUN.test(essenceOf(type))
