import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The repository's folder. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/**
 * Environment variables for everything that is started here, so that it asks nothing and sends no data about its use.
 */
export const quietEnv = {
  TURBO_TELEMETRY_DISABLED: '1',
  DO_NOT_TRACK: '1',
  NO_UPDATE_NOTIFIER: '1',
  npm_config_update_notifier: 'false',
}

/** Ids of the process groups that run now. */
const groups = new Set()

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal)
  } catch {
    // the group has ended already
  }
}

for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
]) {
  process.on(signal, () => {
    for (const pid of groups) signalGroup(pid, signal)
    process.exit(128 + number)
  })
}
process.on('exit', () => {
  for (const pid of groups) signalGroup(pid, 'SIGKILL')
})

/**
 * Runs a command to its end, without standard input, in a new process group. Never rejects: a command that could not be
 * started has the code 127, and one that took too long has the code 124 and is killed with its children.
 *
 * With `quiet` its output is not printed and is in the result. Otherwise it is printed where this process prints.
 */
export function run(command, args, { cwd = root, env = {}, limitMs = 20 * 60_000, quiet = false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...quietEnv, ...env },
      stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit'],
      detached: true,
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text) => (output += text))
    }
    let late = false
    const timer = setTimeout(() => {
      late = true
      signalGroup(child.pid, 'SIGKILL')
    }, limitMs)
    if (child.pid !== undefined) groups.add(child.pid)
    const done = (code) => {
      clearTimeout(timer)
      // Processes that a command leaves running are ended with it.
      if (child.pid !== undefined) signalGroup(child.pid, 'SIGKILL')
      groups.delete(child.pid)
      resolve({ code, output })
    }
    child.on('error', (error) => {
      output += error.message
      done(127)
    })
    child.on('close', (code) => done(late ? 124 : (code ?? 1)))
  })
}

/** Runs npm: the version that runs this script, else the one on the PATH. */
export function npm(args, options) {
  const path = process.env.npm_execpath
  return path !== undefined && path.endsWith('.js') && path.includes('npm-cli')
    ? run(process.execPath, [path, ...args], options)
    : run('npm', args, options)
}

/** Runs a program of `node_modules/.bin`. */
export const bin = (name, args, options) => run(join(root, 'node_modules', '.bin', name), args, options)

/** An error whose message is for a person. It is printed without a stack. */
export class Stop extends Error {}

/** Runs a script's main function. If it throws a `Stop`, the message is printed and the exit status is 1. */
export async function main(script) {
  try {
    process.exitCode = await script()
  } catch (error) {
    if (!(error instanceof Stop)) throw error
    process.stderr.write(`\n${error.message}\n`)
    process.exitCode = 1
  }
}

export const say = (text) => process.stdout.write(`${text}\n`)
