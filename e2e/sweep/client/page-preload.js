/**
 * Runs in a page before the page's own scripts (`addInitScript`). It counts every call by which the product stores
 * something or learns something: writes to IndexedDB and their commits, requests and their answers, and locks. It stops
 * the page permanently right before or right after the call that was planned. The product does not know of it.
 *
 * Calls are named by what they do and numbered within their name, so that another run finds the same call again. A page
 * is stopped by a synchronous request that is never answered. Its thread is blocked and is killed in that state.
 */
;(() => {
  if (!location.protocol.startsWith('http')) return
  const { open, send } = XMLHttpRequest.prototype
  const ask = (method, path, body = null) => {
    const request = new XMLHttpRequest()
    open.call(request, method, path, false)
    send.call(request, body)
    return request.responseText
  }

  const kill = JSON.parse(ask('GET', '/sweep/plan'))
  const counts = new Map()
  const moments = []
  function reached(name, nth, when) {
    moments.push({ name, nth, when })
    if (kill !== null && kill.name === name && kill.nth === nth && kill.when === when) ask('POST', '/sweep/die')
  }
  function numbered(name) {
    const nth = (counts.get(name) ?? 0) + 1
    counts.set(name, nth)
    return nth
  }
  /** Numbers a call. Returns a function that is to be called when the call is over. */
  function begin(name) {
    const nth = numbered(name)
    reached(name, nth, 'before')
    return () => reached(name, nth, 'after')
  }
  const openDatabase = IDBFactory.prototype.open
  Object.assign(globalThis, {
    sweep: {
      moments,
      note: (note) => void ask('POST', '/sweep/note', JSON.stringify(note)),
      /** Records something that the page itself did. */
      did: (name) => reached(name, numbered(name), 'after'),
      /** Opens a database as it is. The harness does this, so it is not counted as a call of the product. */
      look: (name) => openDatabase.call(indexedDB, name),
    },
  })

  // ── the journal, and the copies ────────────────────────────────────────────────────────────────────────────────────

  const changes = new WeakMap()
  const { transaction } = IDBDatabase.prototype
  IDBDatabase.prototype.transaction = function (...args) {
    const made = transaction.apply(this, args)
    if (made.mode === 'readonly') return made
    const all = []
    changes.set(made, all)
    // This listener runs before the product's listeners, because the product has not used the transaction yet.
    made.addEventListener('complete', () => {
      if (all.length === 0) return
      const name = `commit ${all.join(', ')}`
      reached(name, numbered(name), 'after')
    })
    return made
  }
  const ofRecord = (value) => {
    if (typeof value?.removedAtMs === 'number') return ' removed'
    return typeof value?.standing?.point === 'string' ? ` ${value.standing.point}, copy ${value.copy}` : ''
  }
  for (const kind of ['put', 'add', 'delete', 'clear']) {
    const plain = IDBObjectStore.prototype[kind]
    IDBObjectStore.prototype[kind] = function (...args) {
      const name = `${kind} ${this.name}${kind === 'put' || kind === 'add' ? ofRecord(args[0]) : ''}`
      const end = begin(name)
      const request = plain.apply(this, args)
      // The write has succeeded and is not committed. If the page is killed here, both outcomes are possible.
      request.addEventListener('success', end)
      changes.get(this.transaction)?.push(name)
      return request
    }
  }
  IDBFactory.prototype.open = function (...args) {
    const end = begin(`open ${args[0]}`)
    const request = openDatabase.apply(this, args)
    request.addEventListener('upgradeneeded', () => {
      const ended = begin(`create ${args[0]}`)
      request.transaction.addEventListener('complete', ended)
    })
    request.addEventListener('success', end)
    return request
  }

  // ── requests ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const nameOf = (method, url) =>
    `${method} ${new URL(url, location.href).pathname.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, '#')}`
  const plainFetch = fetch
  globalThis.fetch = async (input, init) => {
    const { method, url } = input instanceof Request ? input : { method: 'GET', url: String(input) }
    const end = begin(nameOf(init?.method ?? method, url))
    const response = await plainFetch(input, init)
    end()
    return response
  }
  const names = new WeakMap()
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    names.set(this, nameOf(method, String(url)))
    return open.call(this, method, url, ...rest)
  }
  XMLHttpRequest.prototype.send = function (body) {
    const end = begin(names.get(this))
    // At the target, listeners are called in order, and capturing ones come first.
    this.addEventListener('load', end, { capture: true })
    return send.call(this, body)
  }

  // ── locks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  const request = LockManager.prototype.request
  LockManager.prototype.request = function (name, ...rest) {
    const granted = rest.pop()
    const end = begin('lock')
    return request.call(this, name, ...rest, (lock) => {
      end()
      return granted(lock)
    })
  }
})()
