import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bin, main, quietEnv, root, say, Stop } from './run.mjs'
import { setup } from './setup.mjs'

const SERVER = join(root, 'e2e', 'dist', 'demo', 'server.js')
const DEFAULT_PORT = 3000
/** How many ports are tried, beginning with the wanted one. */
const PORTS_TRIED = 100
const READY_WITHIN_MS = 30_000

function wantedPort() {
  const text = process.env.PORT ?? ''
  if (text === '') return DEFAULT_PORT
  const port = Number(text)
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port
  throw new Stop(`PORT is ${text}, which is not a port number.`)
}

async function freePortFrom(wanted) {
  for (let port = wanted; port < Math.min(wanted + PORTS_TRIED, 65_536); port += 1) {
    if (!(await isFree(port))) continue
    if (port !== wanted) say(`Port ${wanted} is taken; using ${port}.`)
    return port
  }
  throw new Stop(`There is no free port from ${wanted} on. Choose another port: PORT=8000 npm start`)
}

/**
 * The port must be free on all addresses. Otherwise another program that listens on one of them would get some of the
 * visitors.
 */
const isFree = (port) =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, () => server.close(() => resolve(true)))
  })

/** Runs the demo server in the foreground, until the server ends. */
function serve(port) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [SERVER], {
      cwd: root,
      env: { DATA_DIR: join(root, 'data'), ...process.env, ...quietEnv, PORT: String(port) },
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      // The handlers of `run.mjs` end this process at once. Here the server is drained first.
      process.removeAllListeners(signal)
      process.on(signal, () => child.kill(signal))
    }
    process.on('exit', () => child.kill('SIGKILL'))
    child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)))
    child.on('error', () => resolve(1))
    void announce(port, () => child.exitCode === null && child.signalCode === null)
  })
}

async function announce(port, isRunning) {
  for (let waitedMs = 0; waitedMs < READY_WITHIN_MS && isRunning(); waitedMs += 100) {
    if (await accepts(port)) {
      say(`\n  Landfall's demo: http://localhost:${port}\n  Files and database: ${process.env.DATA_DIR ?? './data'}\n`)
      return
    }
    await sleep(100)
  }
  if (isRunning()) say(`The demo server runs, but does not answer on port ${port} after ${READY_WITHIN_MS / 1000} s.`)
}

const accepts = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, 'localhost')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })

await main(async () => {
  await setup({ browser: false })
  say('Building.')
  const { code } = await bin('turbo', ['run', 'build', '--output-logs=errors-only'])
  if (code !== 0) throw new Stop(`The build failed (${code}); see above.`)
  if (!existsSync(SERVER)) throw new Stop(`The demo server is missing: the build made no ${SERVER}.`)
  return serve(await freePortFrom(wantedPort()))
})
