export { blobStoreContract, type BlobStoreFixture } from './blob-store.js'
export { ledgerContract, type LedgerFixture } from './ledger.js'
export type { RegisterTest } from './suite.js'
