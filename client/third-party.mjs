import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, sep } from 'node:path'

/**
 * Writes the licence text of every package whose code is in a bundle to one file, as those licences ask. The list comes
 * from the modules that the bundles really contain, so that it cannot differ from them. One instance serves all bundles
 * of a build. A bundled package without a licence text fails the build.
 */
export function thirdPartyLicenses(file) {
  /** Folders of packages, by name and version. */
  const folders = new Map()
  return {
    name: 'third-party-licenses',
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== 'chunk') continue
        for (const id of chunk.moduleIds) {
          const folder = packageOf(id)
          if (folder === null) continue
          const { name, version } = manifestOf(folder)
          folders.set(`${name} ${version}`, folder)
        }
      }
      const texts = [...folders.keys()]
        .toSorted((a, b) => (a < b ? -1 : 1))
        .map((name) => sectionOf(name, folders.get(name)))
      writeFileSync(file, [HEAD, ...texts].join(`\n${'-'.repeat(80)}\n\n`))
    },
  }
}

const HEAD = `The files of @landfall/client contain code of the packages below. Each is followed by its licence.\n`

/** The folder of the package that a module belongs to; null for a module of this repository or of the bundler. */
function packageOf(id) {
  const marker = `${sep}node_modules${sep}`
  const at = id.lastIndexOf(marker)
  if (at === -1 || id.startsWith('\0')) return null
  const parts = id.slice(at + marker.length).split(sep)
  return join(id.slice(0, at + marker.length), ...parts.slice(0, parts[0].startsWith('@') ? 2 : 1))
}

const manifestOf = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))

function sectionOf(name, folder) {
  const text = readdirSync(folder).find((entry) => /^licen[cs]e(\.(md|txt))?$/i.test(entry))
  if (text === undefined) throw new Error(`${name} is bundled, and its folder has no licence text`)
  const { license } = manifestOf(folder)
  return `${name} (${license})\n\n${readFileSync(join(folder, text), 'utf8').trim()}\n`
}
