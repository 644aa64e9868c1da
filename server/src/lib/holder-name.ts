import { readFileSync } from 'node:fs'
import { v4 as uuidv4 } from 'uuid'

/**
 * One start of the kernel. Bytes that a process wrote without syncing survive the process as long as the kernel runs.
 * After a power loss or a reboot they may be lost. If there is no boot id (it is a feature of Linux), each process
 * counts as a boot of its own, and unsynced bytes are never relied on.
 */
const BOOT_ID = readBootId() ?? `unknown-${uuidv4()}`

function readBootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return null
  }
}

/**
 * A name for this process as a holder of leases. It is never used again, and contains the boot in which the process
 * ran.
 */
export const createHolderName = (): string => `${BOOT_ID}/${process.pid}/${uuidv4()}`

/** Whether the holder of that name wrote during the current boot. */
export const wroteInThisBoot = (holder: string | null): boolean => holder !== null && holder.startsWith(`${BOOT_ID}/`)
