import { promisifyRequest, type UseStore } from 'idb-keyval'

/** The version of the databases' schema. A page of a later version raises it. */
const SCHEMA_VERSION = 1

/**
 * A store for idb-keyval's functions, in a database of its own. It differs from idb-keyval's `createStore` in two
 * points:
 *
 * - It closes its connection when another page wants to upgrade or delete the database (`versionchange`). Without that,
 *   every tab that is open keeps the upgrade waiting until the user closes it.
 * - It names its version. After a newer page has upgraded the database, opening it fails with a `VersionError`, so that
 *   an old page cannot write its own layout into a schema that it does not know.
 *
 * A connection that was closed, by an upgrade or because the browser deleted the site's data, is opened again with the
 * next call.
 *
 * @see https://w3c.github.io/IndexedDB/#opening section 2.8 and "versionchange" in section 2.1.1
 */
export function openStore(databaseName: string, storeName: string): UseStore {
  let opened: Promise<IDBDatabase> | null = null
  const forget = (): void => {
    opened = null
  }
  const open = async (): Promise<IDBDatabase> => {
    const request = indexedDB.open(databaseName, SCHEMA_VERSION)
    request.addEventListener('upgradeneeded', () => request.result.createObjectStore(storeName))
    const database = await promisifyRequest(request)
    database.addEventListener('close', forget)
    database.addEventListener('versionchange', () => {
      // Transactions that have begun still end. Later ones need a new connection.
      database.close()
      forget()
    })
    return database
  }
  return async (mode, work) => {
    const opening = (opened ??= open())
    const database = await opening.catch((cause: unknown) => {
      if (opened === opening) forget()
      throw cause
    })
    return work(database.transaction(storeName, mode).objectStore(storeName))
  }
}
