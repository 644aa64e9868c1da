import { readFileSync } from 'node:fs'
import { v4 as uuidv4 } from 'uuid'

/**
 * One start of the kernel. Bytes that a process wrote without syncing them survive its death as long as the kernel
 * lives; after a power loss or a reboot nothing of them is sure. Where no boot id can be had (it is Linux's), each
 * process counts as a boot of its own, and unsynced bytes are never relied upon.
 */
const BOOT_ID = readBootId() ?? `unknown-${uuidv4()}`

function readBootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return null
  }
}

/** A name for this process as holder of leases: never used again, and telling in which boot it lived. */
export const createHolderName = (): string => `${BOOT_ID}/${process.pid}/${uuidv4()}`

/** Whether the holder of that name wrote in the boot that still runs. */
export const wroteInThisBoot = (holder: string | null): boolean => holder !== null && holder.startsWith(`${BOOT_ID}/`)
