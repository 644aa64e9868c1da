export type { Limits } from './kinds/admission.js'
export type { Authenticate } from './http/app.js'
export type { AllowedOrigins } from './http/same-site.js'
export { fileBlobs, type FileBlobsOptions } from './blobs/file/file-blobs.js'
export type { Pass } from './sequence/completer.js'
export type { Delivered, Effect, EffectContext, EffectFunction, Receiver, ReferenceFacts } from './kinds/effect.js'
export type { AskHealth, Health, HealthCheck } from './operate/health.js'
export { healthRoutes } from './http/health.js'
export type { EffectSettings } from './effects/effects.js'
export type { Backoff } from './lib/backoff.js'
export { ProblemError } from './lib/problem-error.js'
export { UploadError, type UploadErrorCode } from './lib/errors.js'
export type { BlobFacts, OperationFacts } from './kinds/facts.js'
export {
  type Kind,
  kind,
  type KindFor,
  type KindOptions,
  type PrepareContext,
  type PrepareStep,
  type ReferenceContext,
  reject,
  type Rejection,
} from './kinds/kind.js'
export { MIGRATIONS } from './ledger/sqlite/migrations.js'
export { POSTGRES_MIGRATIONS } from './ledger/postgres/migrations.js'
export { postgresLedger, type PostgresTx } from './ledger/postgres/ledger.js'
export {
  serializedLibsql,
  type SerializedLibsql,
  type SerializedLibsqlOptions,
} from './ledger/sqlite/client/serialized-libsql.js'
export { sqliteLedger, type SqliteTx } from './ledger/sqlite/ledger.js'
export type { Logger } from './lib/log.js'
export type { NodeHandler } from './http/node-handler.js'
export {
  guardServer,
  type GuardOptions,
  nodeServerOptions,
  serveUploads,
  type ServeOptions,
} from './http/node-server.js'
export type * from './ports/blob-store.js'
export type * from './ports/clock.js'
export type * from './ports/ledger.js'
export type * from './ports/ledger/effects.js'
export type * from './ports/ledger/inventory.js'
export type * from './ports/ledger/leases.js'
export type * from './ports/ledger/marks.js'
export type * from './ports/ledger/operations.js'
export type * from './ports/ledger/references.js'
export type * from './ports/metrics.js'
export type * from './ports/operation.js'
export { standardWebhook, type StandardWebhookOptions } from './effects/webhook.js'
export type { Check } from './operate/doctor.js'
export type { Operator } from './operate/operator.js'
export type { Finding, FindingType, ReconcileOptions, ReconcileReport } from './operate/reconcile.js'
export { createUploads, type Uploads } from './uploads.js'
export type { Kinds, UploadsOptions } from './uploads-options.js'
