// What a call of a node is called: by what it does, so that the same call is found again in another run.

/** Of PostgreSQL's frontend protocol: the text of a simple query, or of one that is parsed; null: neither. */
export function sqlOf(bytes: Buffer): string | null {
  const text = /^(?:Q[^]{4}|P[^]{4}[^\0]*\0)([^\0]+)/.exec(bytes.toString('latin1', 0, 2_000))?.[1]
  return text === undefined ? null : text.replaceAll(/\s+/g, ' ').trim().slice(0, 110)
}

/** Whatever ends a transaction is named after what it ends. */
export function createSqlNames(): (sql: string, connection: number) => string {
  const latest = new Map<number, string>()
  return (sql, connection) => {
    if (/^(commit|rollback)/i.test(sql)) return `sql ${sql.toUpperCase()} after ${latest.get(connection) ?? ''}`
    if (!/^(begin|select)/i.test(sql)) latest.set(connection, sql)
    return `sql ${sql}`
  }
}

/** `path`: with its query. `/bucket/prefix/` come first in it. */
export function s3CallOf(method: string, path: string): string {
  const { pathname, searchParams: query } = new URL(path, 'http://store')
  const folder = decodeURIComponent(query.get('prefix') ?? pathname.split('/').slice(2).join('/')).split('/')[1] ?? ''
  return `${actionOf(method, query)} ${folder}`
}

function actionOf(method: string, query: URLSearchParams): string {
  const isOfUpload = query.has('uploadId')
  switch (method) {
    case 'HEAD':
      return 'HeadObject'
    case 'PUT':
      return isOfUpload ? 'UploadPart' : 'PutObject'
    case 'POST':
      return isOfUpload ? 'CompleteMultipartUpload' : 'CreateMultipartUpload'
    case 'DELETE':
      return isOfUpload ? 'AbortMultipartUpload' : 'DeleteObject'
    default:
      if (isOfUpload) return 'ListParts'
      if (query.has('uploads')) return 'ListMultipartUploads'
      return query.has('list-type') ? 'ListObjectsV2' : 'GetObject'
  }
}
