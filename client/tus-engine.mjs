/**
 * The part of tus-js-client 4.3.1 that sends PATCHes, for `rolldown` and `vitest` alike. Creations, parallel uploads and
 * the search for previous uploads are the operation's business here and can never be reached (there is no `endpoint`);
 * with the two packages that only they need they would be a quarter of the whole client. A method that is not found
 * as expected fails the build.
 */
const METHODS = [
  'static terminate',
  'findPreviousUploads',
  'resumeFromPreviousUpload',
  '_startParallelUpload',
  '_createUpload',
]
const FUNCTIONS = ['encodeMetadata', 'resolveUrl', 'splitSizeIntoParts']
const IMPORTS = ['js-base64', 'url-parse']

const cut = (code, what, pattern) => {
  if (!pattern.test(code)) throw new Error(`tus-js-client is not as expected: no ${what}`)
  return code.replace(pattern, '')
}

export const tusEngine = {
  name: 'tus-engine',
  transform(code, id) {
    if (!/tus-js-client[\\/]lib[\\/]upload\.js/.test(id)) return null
    let rest = code
    for (const name of METHODS) rest = cut(rest, name, new RegExp(`^  ${name}\\([^]*?^  }\\n`, 'm'))
    for (const name of FUNCTIONS) rest = cut(rest, name, new RegExp(`^function ${name}\\([^]*?^}\\n`, 'm'))
    for (const name of IMPORTS) rest = cut(rest, name, new RegExp(`^import .* from '${name}'\\n`, 'm'))
    return { code: rest, map: null }
  },
}
