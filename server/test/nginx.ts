import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { later } from './harness.js'

/** The shipped configuration, with the paths and ports of this machine instead of those of a container. */
const SHIPPED = fileURLToPath(new URL('../deploy/nginx/landfall.conf', import.meta.url))

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Starts nginx in front of nodes at these ports, three at most. The users are ann and bob, the password is `secret`. */
export async function startNginx(program: string, directory: string, nodePorts: readonly number[]) {
  const folder = join(directory, 'nginx')
  await mkdir(folder)
  const port = await freePort()
  const http2Port = await freePort()
  await writeFile(join(folder, 'users'), 'ann:{PLAIN}secret\nbob:{PLAIN}secret\n')
  await writeFile(
    join(folder, 'landfall.conf'),
    replaced(await readFile(SHIPPED, 'utf8'), [
      ['listen 80;', `listen 127.0.0.1:${port};\n  listen 127.0.0.1:${http2Port} http2;`],
      ...[1, 2, 3].map((n): [string, string] => {
        const nodePort = nodePorts[n - 1]
        return nodePort === undefined
          ? [`  server landfall-${n}:3000 max_fails=0;\n`, '']
          : [`landfall-${n}:3000`, `127.0.0.1:${nodePort}`]
      }),
      ['/etc/nginx/landfall-users', join(folder, 'users')],
    ]),
  )
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `  ${name}_temp_path ${join(folder, name)};`)
    .join('\n')
  await writeFile(
    join(folder, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user root;\n' : ''}daemon off;
pid ${join(folder, 'pid')};
error_log ${join(folder, 'error.log')};
events {}
http {
  access_log off;
${temporary}
  include landfall.conf;
}
`,
  )
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')]
  const checked = spawnSync(program, [...args, '-t'], { encoding: 'utf8' })
  let child: ChildProcess | null = null
  return {
    checked,
    address: `http://127.0.0.1:${port}`,
    port,
    /** The port for HTTP/2 without TLS. */
    http2Port,
    async start() {
      const started = spawn(program, args, { stdio: 'ignore' })
      child = started
      for (const deadline = Date.now() + 10_000; ; await later(20)) {
        if (Date.now() > deadline || started.exitCode !== null)
          throw new Error(await readFile(join(folder, 'error.log'), 'utf8'))
        if (
          await fetch(`http://127.0.0.1:${port}/`).then(
            () => true,
            () => false,
          )
        )
          return
      }
    },
    async stop() {
      if (child === null || child.exitCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}

function replaced(text: string, pairs: readonly (readonly [string, string])[]): string {
  return pairs.reduce((now, [from, to]) => {
    if (!now.includes(from)) throw new Error(`the configuration does not say ${from}`)
    return now.replace(from, to)
  }, text)
}
