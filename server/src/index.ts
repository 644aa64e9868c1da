export type { Limits } from './access.js'
export type { Authenticate } from './app.js'
export type { AllowedOrigins } from './context.js'
export { fileBlobs, type FileBlobsOptions } from './blobs/file.js'
export type { Pass } from './completer.js'
export type { Delivered, Effect, EffectContext, EffectFunction, Receiver, ReferenceFacts } from './delivery.js'
export type { AskHealth, Health, HealthCheck } from './health.js'
export { healthRoutes } from './routes/health.js'
export type { EffectSettings } from './effects.js'
export type { Backoff } from './backoff.js'
export { ProblemError } from './context.js'
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
export { POSTGRES_MIGRATIONS } from './ledger/postgres-migrations.js'
export { postgresLedger, type PostgresTx } from './ledger/postgres.js'
export { serializedLibsql, type SerializedLibsql, type SerializedLibsqlOptions } from './ledger/serialized-libsql.js'
export { sqliteLedger, type SqliteTx } from './ledger/sqlite.js'
export type { Logger } from './log.js'
export type { NodeHandler } from './node-handler.js'
export { guardServer, type GuardOptions, nodeServerOptions, serveUploads, type ServeOptions } from './node-server.js'
export type * from './ports.js'
export { standardWebhook, type StandardWebhookOptions } from './webhook.js'
export type { Check } from './doctor.js'
export type { Operator } from './operator.js'
export type { Finding, FindingType, ReconcileOptions, ReconcileReport } from './reconcile.js'
export { createUploads, type Kinds, type Uploads, type UploadsOptions } from './uploads.js'
