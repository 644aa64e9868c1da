export type { Limits } from './access.js'
export type { Authenticate } from './app.js'
export { fileBlobs, type FileBlobsOptions } from './blobs/file.js'
export type { Pass } from './completer.js'
export { UploadError, type UploadErrorCode } from './errors.js'
export {
  type BlobFacts,
  type Kind,
  kind,
  type KindFor,
  type KindOptions,
  type OperationFacts,
  type PrepareContext,
  type PrepareStep,
  type ReferenceContext,
  reject,
  type Rejection,
} from './kinds.js'
export { MIGRATIONS } from './ledger/migrations.js'
export { serializedLibsql, type SerializedLibsql, type SerializedLibsqlOptions } from './ledger/serialized-libsql.js'
export { sqliteLedger, type SqliteTx } from './ledger/sqlite.js'
export type { Logger } from './log.js'
export type * from './ports.js'
export { createUploads, type Kinds, type Uploads, type UploadsOptions } from './uploads.js'
