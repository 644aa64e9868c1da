/**
 * Loaded into a server process from outside (`node --require`). It counts every external call that the process makes:
 * statements of the database, calls that change files, and answers. It ends the process with SIGKILL right before or
 * right after the planned call. The product does not know of it.
 *
 * Calls are named by what they do and numbered within their name, so that another run finds the same call again.
 *
 * - `SWEEP_LOG`: the file for a line of JSON for each call, and for what a loss of power would take.
 * - `SWEEP_DIRECTORY`: only files below it count.
 * - `SWEEP_KILL`: `{"name","nth","when":"before"|"after"}`. A message to the process can set it later.
 * - `SWEEP_BOOT`: the id of the kernel's boot, which differs after the power was lost.
 */
'use strict'
const { isMainThread } = require('node:worker_threads')
// The hashing thread only reads.
if (!isMainThread) return

const fs = require('node:fs')
const http = require('node:http')
const { syncBuiltinESMExports } = require('node:module')
const path = require('node:path')

const ROOT = process.env.SWEEP_DIRECTORY
const real = { ...fs }
const log = real.openSync(process.env.SWEEP_LOG, 'a')
const backups = `${process.env.SWEEP_LOG}.kept`
real.mkdirSync(backups, { recursive: true })

let plan = process.env.SWEEP_KILL === undefined ? null : JSON.parse(process.env.SWEEP_KILL)
let counts = new Map()
const tell = (line) => real.writeSync(log, `${JSON.stringify(line)}\n`)
const die = () => process.kill(process.pid, 'SIGKILL')

process.on('message', (message) => {
  if (message.type !== 'plan') return
  plan = message.plan
  counts = new Map()
  tell({ plan })
  process.send({ type: 'planned' })
})
process.channel?.unref()

/** Numbers a call. Returns a function that is to be called when the call is over. */
function begin(name) {
  const nth = (counts.get(name) ?? 0) + 1
  counts.set(name, nth)
  const isMeant = plan !== null && plan.name === name && plan.nth === nth
  tell({ call: name, nth })
  if (isMeant && plan.when === 'before') die()
  return isMeant && plan.when === 'after' ? die : () => {}
}

// ── the database ─────────────────────────────────────────────────────────────────────────────────────────────────────

const shortened = (sql) => sql.replaceAll(/\s+/g, ' ').trim().slice(0, 110)
/**
 * A statement that ends a transaction is named after what it ends, so that the same COMMIT is found again among those
 * of a busy server.
 */
const latest = new WeakMap()
function nameOf(database, sql) {
  if (/^\s*(release|commit|rollback)/i.test(sql)) return `sql ${shortened(sql)} after ${latest.get(database) ?? ''}`
  const name = shortened(sql)
  if (!/^\s*(begin|savepoint|select|pragma)/i.test(sql)) latest.set(database, name)
  return `sql ${name}`
}
/**
 * Records the end of the write-ahead log after each commit. Another connection may see the commit only when the log is
 * synced up to there.
 */
function committed(database) {
  if (database.inTransaction) return
  const file = fileOf(database)
  if (!file.startsWith(ROOT)) return
  const wal = `${file}-wal`
  const size = real.statSync(wal, { throwIfNoEntry: false })?.size ?? 0
  tell({ wal, size, synced: synchronous(database) >= 2 })
}
const paths = new WeakMap()
function fileOf(database) {
  if (!paths.has(database)) paths.set(database, prepare.call(database, 'PRAGMA database_list').get().file)
  return paths.get(database)
}
const settings = new WeakMap()
function synchronous(database) {
  let statement = settings.get(database)
  if (statement === undefined) settings.set(database, (statement = prepare.call(database, 'PRAGMA synchronous')))
  return Number(statement.get().synchronous)
}

const Database = require(process.env.SWEEP_LIBSQL)
const { prepare, exec } = Database.prototype
Database.prototype.exec = function (sql) {
  const end = begin(nameOf(this, sql))
  const result = exec.call(this, sql)
  if (/^\s*(commit|release|insert|update|delete)/i.test(sql)) committed(this)
  end()
  return result
}
Database.prototype.prepare = function (sql) {
  const statement = prepare.call(this, sql)
  const database = this
  let isRunning = false
  for (const method of ['run', 'get', 'all', 'iterate']) {
    const plain = statement[method].bind(statement)
    statement[method] = (...args) => {
      // libsql's own methods call each other.
      if (isRunning) return plain(...args)
      const end = begin(nameOf(database, sql))
      isRunning = true
      let result
      try {
        result = plain(...args)
      } finally {
        isRunning = false
      }
      if (!/^\s*(select|pragma|explain)/i.test(sql)) committed(database)
      end()
      return result
    }
  }
  return statement
}

// ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Open descriptors below the directory, with their paths, and whether each write is synced. */
const open = new Map()
const isInside = (name) => typeof name === 'string' && path.resolve(name).startsWith(ROOT)
/** The kind of a file instead of its name, because keys differ from run to run. */
const shape = (name) => path.relative(ROOT, path.resolve(name)).replaceAll(/[0-9a-f]{2,}/g, '#')
let kept = 0
/** A name that is removed or replaced comes back after a loss of power, so its content is kept in another place. */
function keep(name) {
  const copy = path.join(backups, `${process.pid}-${(kept += 1)}`)
  try {
    real.linkSync(name, copy)
    return copy
  } catch {
    return null
  }
}

const { O_CREAT, O_WRONLY, O_RDWR, O_DSYNC, O_SYNC } = fs.constants
const writes = (flags) =>
  typeof flags === 'number' ? (flags & (O_CREAT | O_WRONLY | O_RDWR)) !== 0 : flags !== undefined && flags !== 'r'
const syncs = (flags) => typeof flags === 'number' && ((flags & O_DSYNC) === O_DSYNC || (flags & O_SYNC) === O_SYNC)

/** For each call: its name, what is noted before it, and what is done after it. */
const CALLS = {
  open: (name, flags) =>
    isInside(name) && {
      ...(writes(flags) ? { name: `open ${shape(name)}` } : {}),
      before: () => real.statSync(name, { throwIfNoEntry: false }),
      after: (fd, before) => {
        open.set(typeof fd === 'number' ? fd : fd.fd, { path: path.resolve(name), synced: syncs(flags) })
        if (before === undefined) tell({ created: path.resolve(name) })
        else if (writes(flags)) tell({ opened: path.resolve(name), size: before.size })
      },
    },
  close: (fd) => open.has(fd) && { after: () => open.delete(fd) },
  write: (fd, buffer, offset, length, position) => writing(fd, length, position),
  writev: (fd, buffers, position) =>
    writing(
      fd,
      buffers.reduce((total, { length }) => total + length, 0),
      position,
    ),
  ftruncate: (fd, size) =>
    open.has(fd) && {
      name: `truncate ${shape(open.get(fd).path)}`,
      after: () => tell({ truncated: open.get(fd).path, size }),
    },
  fsync: (fd) => syncing(fd),
  fdatasync: (fd) => syncing(fd),
  mkdir: (name) =>
    isInside(name) && {
      name: `mkdir ${shape(name)}`,
      before: () => ({ missing: missingAbove(path.resolve(name)) }),
      after: (_result, { missing }) => {
        for (const created of missing) tell({ created })
      },
    },
  rmdir: (name) =>
    isInside(name) && { name: `rmdir ${shape(name)}`, after: () => tell({ removed: path.resolve(name) }) },
  unlink: (name) =>
    isInside(name) && {
      name: `unlink ${shape(name)}`,
      before: () => ({ copy: keep(name) }),
      after: (_result, { copy }) => tell({ removed: path.resolve(name), copy }),
    },
  rename: (from, to) =>
    isInside(from) && {
      name: `rename ${shape(from)} ${shape(to)}`,
      before: () => ({ copy: keep(to) }),
      after: (_result, { copy }) => tell({ renamed: path.resolve(from), to: path.resolve(to), copy }),
    },
}

const writing = (fd, length, position) =>
  open.has(fd) && {
    name: `write ${shape(open.get(fd).path)}`,
    after: () => {
      const { path: name, synced } = open.get(fd) ?? {}
      const from = position ?? real.fstatSync(fd).size - length
      tell({ written: name, from, to: from + length, synced })
    },
  }
const syncing = (fd) =>
  open.has(fd) && {
    name: `sync ${shape(open.get(fd).path)}`,
    // This sync may not include what is written while it runs.
    before: () => void tell({ syncing: open.get(fd).path }),
    after: () => open.has(fd) && tell({ synced: open.get(fd).path }),
  }
function missingAbove(name) {
  const missing = []
  for (let at = name; at.startsWith(ROOT) && !real.existsSync(at); at = path.dirname(at)) missing.unshift(at)
  return missing
}

function around(describe, args) {
  const call = describe(...args)
  if (call === false) return null
  const end = call.name === undefined ? () => {} : begin(call.name)
  const noted = call.before?.()
  return (result) => {
    call.after?.(result, noted)
    end()
  }
}

for (const [name, describe] of Object.entries(CALLS)) {
  const plain = fs[name]
  const replaced = (...args) => {
    const done = args.pop()
    const end = around(describe, args)
    plain(...args, (error, ...results) => {
      if (error === null && end !== null) end(results[0])
      done(error, ...results)
    })
  }
  // `promisify(write)` finds its variant, which returns an object, under a symbol of Node's own.
  for (const symbol of Object.getOwnPropertySymbols(plain)) replaced[symbol] = plain[symbol]
  fs[name] = replaced
  const sync = fs[`${name}Sync`]
  fs[`${name}Sync`] = (...args) => {
    const end = around(describe, args)
    const result = sync(...args)
    end?.(result)
    return result
  }
  const promised = fs.promises[name]
  if (promised !== undefined)
    fs.promises[name] = async (...args) => {
      const end = around(describe, args)
      const result = await promised(...args)
      end?.(result)
      return result
    }
}

// Wraps file handles. The promised `open` above has noted their descriptors.
async function wrapHandles() {
  const handle = await real.promises.open(__filename, 'r')
  const prototype = Object.getPrototypeOf(handle)
  await handle.close()
  const { writeFile, sync, datasync, close } = prototype
  prototype.writeFile = async function (data, ...rest) {
    const end = around((fd) => writing(fd, Buffer.byteLength(data), 0), [this.fd])
    await writeFile.call(this, data, ...rest)
    end?.()
  }
  for (const [name, plain] of Object.entries({ sync, datasync }))
    prototype[name] = async function () {
      const end = around((fd) => syncing(fd), [this.fd])
      await plain.call(this)
      end?.()
    }
  prototype.close = async function () {
    open.delete(this.fd)
    return close.call(this)
  }
}
void wrapHandles()

// ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────

fs.readFileSync = (file, ...rest) =>
  file === '/proc/sys/kernel/random/boot_id' ? `${process.env.SWEEP_BOOT}\n` : real.readFileSync(file, ...rest)

syncBuiltinESMExports()

// ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const { writeHead, end: endResponse } = http.ServerResponse.prototype
const answering = Symbol('answering')
const nameOfAnswer = (response, status) =>
  `answer ${response.req?.method} ${(response.req?.url ?? '').replaceAll(/[0-9a-f-]{36}/g, '#').split('?')[0]} ${status}`
http.ServerResponse.prototype.writeHead = function (status, ...rest) {
  if (this[answering] === undefined) this[answering] = begin(nameOfAnswer(this, status))
  return writeHead.call(this, status, ...rest)
}
http.ServerResponse.prototype.end = function (...args) {
  this[answering] ??= begin(nameOfAnswer(this, this.statusCode))
  // The answer was given to the operating system, which sends it even if this process dies.
  this.once('finish', () => setImmediate(() => this[answering]()))
  return endResponse.apply(this, args)
}
