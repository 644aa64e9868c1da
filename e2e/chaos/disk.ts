import { execFile, execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** A separate disk for the data, which can be filled. */
export interface Disk {
  /** Fills the disk so that almost nothing more fits. */
  fill(): Promise<void>
  free(): Promise<void>
  unmount(): Promise<void>
}

const SOURCE = 'landfall-chaos'
const SIZE = '6g'
const ROOM_BYTES = 128 * 1024
const mounted = new Set<string>()

function unmountNow(path: string): void {
  mounted.delete(path)
  // The mount is removed lazily, because a process that is being killed may still have files open there.
  execFileSync('umount', ['-l', path], { stdio: 'ignore' })
}
process.on('exit', () => {
  for (const path of mounted) unmountNow(path)
})

/** Unmounts disks of runs that were killed. The name of a mount contains the id of its process. */
function unmountStale(): void {
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [source = '', path = ''] = line.split(' ')
    const pid = new RegExp(`^${SOURCE}-(\\d+)$`).exec(source)?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) unmountNow(path)
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Mounts a tmpfs, which is filled by making it as small as its content. This needs root. */
export async function mountDisk(path: string): Promise<Disk> {
  unmountStale()
  await execute('mount', ['-t', 'tmpfs', '-o', `size=${SIZE},mode=755`, `${SOURCE}-${process.pid}`, path])
  mounted.add(path)
  const resize = (size: string): Promise<unknown> => execute('mount', ['-o', `remount,size=${size}`, path])
  return {
    async fill() {
      for (let tries = 0; ; tries += 1) {
        const { blocks, bfree, bsize } = await statfs(path)
        try {
          // Room for what the content grows by while `mount` starts. The little room that is left over is soon full.
          const roomBytes = tries * ROOM_BYTES
          await resize(`${((blocks - bfree) * bsize + roomBytes) / 1024}k`)
          return
        } catch (error) {
          // The content grew while the disk was resized.
          if (tries > 100) throw error
        }
      }
    },
    free: async () => void (await resize(SIZE)),
    async unmount() {
      if (mounted.has(path)) unmountNow(path)
    },
  }
}
