/** Paths below the mount point. The server makes `:id` in Hono's notation from the same words. */
export const OPERATIONS = '/operations'
export const FILES = '/files'

export const operationPath = (id: string): string => `${OPERATIONS}/${id}`
export const prefixPath = (id: string): string => `${OPERATIONS}/${id}/prefix`
export const filePath = (id: string): string => `${FILES}/${id}`

/** Landfall's own client sends it, and gets true offsets. Requests without it come from standard tus clients. */
export const VERSION_HEADER = 'Landfall-Version'
export const VERSION = '1'

/**
 * Whose the uploads are: an opaque tag of the owner, the same on all nodes. It is on every answer to an authenticated
 * request. A request with another owner's tag changes nothing and is answered 412 `other-owner`. A request of
 * Landfall's own client that would change something must carry a tag, or is answered 428 `owner-required`.
 */
export const OWNER_TAG_HEADER = 'Landfall-Owner'

/**
 * On the answer to a PATCH of Landfall's own client: how far the operation has come by then. It is only a hint. The
 * operation's resource is the truth.
 */
export const RECOVERY_POINT_HEADER = 'Landfall-Recovery-Point'

/** tus 1.0.0, "Headers". */
export const TUS_RESUMABLE = '1.0.0'
export const TUS_CONTENT_TYPE = 'application/offset+octet-stream'

/**
 * Request headers that tus and Landfall need, for CORS: each header that a route reads and that a page may set, and
 * what standard clients send by themselves. A test compares the list with what the routes read.
 */
export const REQUEST_HEADERS = [
  'Authorization',
  'Cache-Control',
  'Content-Encoding',
  'Content-Type',
  'If-Match',
  'If-Modified-Since',
  'If-None-Match',
  'If-Range',
  'If-Unmodified-Since',
  OWNER_TAG_HEADER,
  'Range',
  'Tus-Resumable',
  'Upload-Concat',
  'Upload-Defer-Length',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'X-HTTP-Method-Override',
  'X-Requested-With',
  'X-Request-ID',
  VERSION_HEADER,
] as const

/** Response headers that a page on another origin must be able to read, for CORS. */
export const RESPONSE_HEADERS = [
  'Accept-Encoding',
  'Accept-Ranges',
  'Content-Disposition',
  'Content-Range',
  'ETag',
  OWNER_TAG_HEADER,
  RECOVERY_POINT_HEADER,
  'Location',
  'Repr-Digest',
  'Retry-After',
  'Tus-Extension',
  'Tus-Max-Size',
  'Tus-Resumable',
  'Tus-Version',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'WWW-Authenticate',
] as const
