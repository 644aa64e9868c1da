import type { KindsOf, TypedUploads } from '@landfall/shared'
import { createAuthorization } from './adapters/authorization.js'
import { createBrowserClock } from './adapters/browser-clock.js'
import { createHttpLedger } from './adapters/http-ledger.js'
import { createIdbJournal, createResilientJournal } from './adapters/idb-journal.js'
import { createIdbSource, withoutCopies } from './adapters/sources.js'
import { createTusTransfer } from './adapters/tus-transfer.js'
import { createWebLocks, withoutLocks } from './adapters/web-locks.js'
import { createDigester } from './adapters/worker-digester.js'
import type { EventHub } from './events.js'
import { createUploadList } from './list.js'
import { createOwner } from './owner.js'
import type { Ports } from './ports.js'
import type { Uploader, UploaderOptions } from './types.js'

const DEFAULT_CONCURRENCY = 3

/**
 * The uploads of one user in one page. A picked file ends as exactly one reference on the server, or the user learns
 * why not, whatever crashes in between. It uses no browser global before `start()`, so it may be called while rendering
 * on a server. The type parameter is a type-only import of the server's `uploads`.
 *
 * @example
 * const uploader = createUploader<typeof uploads>({ endpoint: '/uploads', scope: user.id, workerUrl })
 * uploader.on('referenced', (upload) => upload.acknowledge())
 * await uploader.start()
 * uploader.add(file, { kind: 'photo' })
 */
export function createUploader<U extends TypedUploads = TypedUploads>(options: UploaderOptions): Uploader<KindsOf<U>> {
  const { scope, concurrency = DEFAULT_CONCURRENCY } = options
  const list = createUploadList({ scope, concurrency }, (telling) => browserPorts(options, telling))
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the kinds exist only as types; the server's schemas hold them
  return list as Uploader<KindsOf<U>>
}

function browserPorts(options: UploaderOptions, telling: EventHub): Ports {
  const { copy, headers, credentials = 'same-origin', workerUrl, scope, ownerTag } = options
  const endpoint = options.endpoint.replace(/\/+$/, '')
  const clock = createBrowserClock()
  const authorization = createAuthorization(headers, () => telling.unauthenticated('credentials'))
  const http = { endpoint, credentials, authorization, clock, owner: () => owner }
  const { ledger, askWhose } = createHttpLedger(http)
  const journal = createResilientJournal(createIdbJournal(clock), clock, (cause) =>
    telling.warn('journal-in-memory', cause),
  )
  const namespaceOf = (of: string): string => JSON.stringify([absolute(endpoint), of])
  const owner = createOwner({
    scope: namespaceOf(scope),
    given: ownerTag,
    journal,
    clock,
    ask: askWhose,
    onOther: () => telling.unauthenticated('other-owner'),
    onUntold: () => telling.warn('no-owner'),
  })
  const locks = createWebLocks()
  if (locks === null) telling.warn('no-locks')
  return {
    clock,
    namespaceOf,
    owner,
    ledger,
    transfer: createTusTransfer(http),
    journal,
    source: copy === false ? withoutCopies : createIdbSource({ maxBytes: copy?.maxBytes, clock }),
    exclusive: locks ?? withoutLocks,
    digester: createDigester(workerUrl, clock, (cause) => telling.warn('no-worker', cause)),
  }
}

/** Two names of the same endpoint are the same endpoint. A text that cannot be an address is compared as text. */
function absolute(endpoint: string): string {
  try {
    return new URL(endpoint, typeof document === 'undefined' ? location.href : document.baseURI).href
  } catch {
    return endpoint
  }
}
