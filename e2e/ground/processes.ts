import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface ProcessOptions {
  /** The name for messages. Default: the last part of the command. */
  readonly name?: string
  readonly command: string
  readonly args?: readonly string[]
  /** Added to this process's environment. Undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /**
   * The pattern of the ready line. When the whole standard output matches it, the process is ready, and `ready` holds
   * what its groups caught.
   */
  readonly ready: RegExp
  /** Opens a channel for messages (`send`, `onMessage`) to a Node program. Default false. */
  readonly channel?: boolean
  /** Default 60,000, because many processes start at the same time on busy machines. */
  readonly readyWithinMs?: number
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** Figures from `/proc`, in bytes and milliseconds. They include threads and exclude child processes. */
export interface Usage {
  readonly residentBytes: number
  /** The highest value that `residentBytes` has had. */
  readonly peakResidentBytes: number
  readonly cpuMs: number
}

export interface RunningProcess {
  /** The id of the process that runs now, also while it starts. It changes with a restart. */
  readonly pid: number
  /** What the ready line's pattern caught when the process that runs now became ready. */
  readonly ready: RegExpMatchArray
  readonly running: boolean
  /** The last 1 MiB of both output streams, across restarts; for the report of a failing test. */
  output(): string
  /** Sends a message to the process that runs now. @throws when none runs */
  send(message: object): void
  /** Receives the messages of the process, also after restarts. */
  onMessage(listener: (message: unknown) => void): void
  /**
   * Sends the signal and waits for the process to end. Unless the signal is SIGKILL, a process that does not end within
   * 10 s is killed.
   */
  kill(signal?: NodeJS.Signals): Promise<Exit>
  /**
   * Ends the process with SIGTERM, and starts it again with the same settings or with changed ones. Resolves when it is
   * ready.
   */
  restart(changes?: Partial<ProcessOptions>): Promise<void>
  /** Resolves when the process that runs now ends, by itself or by a signal. */
  readonly exited: Promise<Exit>
  usage(): Usage
}

/** What each of our servers prints when it is ready. Its origin is `ready[1]`, and its port is `ready[2]`. */
const LISTENING = /(http:\/\/127\.0\.0\.1:(\d+))/

/** The options for a server that is a Node program and prints its address when it is ready. */
export const nodeServer = (path: string, args: readonly string[], env: ProcessOptions['env'] = {}): ProcessOptions => ({
  name: basename(path),
  command: process.execPath,
  args: [path, ...args],
  env,
  ready: LISTENING,
})

export const originOf = ({ ready }: RunningProcess): string => ready[1] ?? ''
export const portOf = ({ ready }: RunningProcess): number => Number(ready[2])

const OUTPUT_LIMIT = 1_048_576
const PATIENCE_MS = 10_000

/**
 * The processes that this process has started and that have not ended. They are ended at the latest when this process
 * ends.
 */
const alive = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL')
})

/**
 * Starts a program, and resolves when it has printed its ready line.
 *
 * @throws when the program ends before that, or takes too long (it is then killed). The message contains its output.
 */
export async function startProcess(initial: ProcessOptions): Promise<RunningProcess> {
  let options = initial
  let output = ''
  const listeners: ((message: unknown) => void)[] = []
  let pid = 0
  let incarnation = await launch()

  async function launch() {
    const name = options.name ?? options.args?.at(-1) ?? options.command
    const child = spawn(options.command, options.args ?? [], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe', ...(options.channel === true ? (['ipc'] as const) : [])],
    })
    alive.add(child)
    pid = child.pid ?? 0
    child.on('message', (message) => {
      for (const listener of listeners) listener(message)
    })
    const exited = new Promise<Exit>((resolve) => {
      child.on('exit', (code, signal) => {
        alive.delete(child)
        resolve({ code, signal })
      })
      child.on('error', (error) => {
        alive.delete(child)
        keep(`${error.message}\n`)
        resolve({ code: null, signal: null })
      })
    })
    child.stderr?.setEncoding('utf8').on('data', keep)
    const ready = await readyLine(child, exited, name)
    return { child, exited, ready }
  }

  function keep(text: string): void {
    output = (output + text).slice(-OUTPUT_LIMIT)
  }

  async function readyLine(child: ChildProcess, exited: Promise<Exit>, name: string): Promise<RegExpMatchArray> {
    let start = ''
    const found = new Promise<RegExpMatchArray>((resolve) => {
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        keep(text)
        start = (start + text).slice(0, OUTPUT_LIMIT)
        const match = options.ready.exec(start)
        if (match !== null) resolve(match)
      })
    })
    const withinMs = options.readyWithinMs ?? 60_000
    const waiting = new AbortController()
    const outcome = await Promise.race([
      found,
      exited,
      sleep(withinMs, 'late' as const, { signal: waiting.signal }).catch(() => 'late' as const),
    ])
    waiting.abort()
    if (Array.isArray(outcome)) return outcome
    if (outcome !== 'late') throw new Error(`${name} ended (${outcome.signal ?? outcome.code}) unready:\n${output}`)
    child.kill('SIGKILL')
    await exited
    throw new Error(`${name} was not ready within ${withinMs} ms:\n${output}`)
  }

  async function kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    const { child, exited } = incarnation
    if (!alive.has(child)) return exited
    child.kill(signal)
    const waiting = new AbortController()
    const late = sleep(PATIENCE_MS, null, { signal: waiting.signal }).catch(() => null)
    const exit = await Promise.race([exited, late])
    waiting.abort()
    if (exit !== null) return exit
    keep(`(did not end within ${PATIENCE_MS} ms of ${signal})\n`)
    child.kill('SIGKILL')
    return exited
  }

  return {
    get pid() {
      return pid
    },
    get ready() {
      return incarnation.ready
    },
    get running() {
      return alive.has(incarnation.child)
    },
    get exited() {
      return incarnation.exited
    },
    output: () => output,
    send: (message) => void incarnation.child.send(message),
    onMessage: (listener) => void listeners.push(listener),
    kill,
    async restart(changes = {}) {
      await kill()
      options = { ...options, ...changes }
      incarnation = await launch()
    },
    usage: () => usageOf(pid),
  }
}

/** The kernel's USER_HZ is 100 on every architecture that Node supports. */
const MS_PER_TICK = 10

/** @throws when the process does not run any more */
export function usageOf(pid: number): Usage {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The command is in parentheses and may contain spaces. The fields after it are numbered from 3 in proc(5).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[14 - 3]) + Number(fields[15 - 3])
  return {
    residentBytes: kilobytes(status, 'VmRSS') * 1024,
    peakResidentBytes: kilobytes(status, 'VmHWM') * 1024,
    cpuMs: ticks * MS_PER_TICK,
  }
}

function kilobytes(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? Number.NaN)
}
