/** A call of an object store, by the name that S3 gives it. `path`: with its query. */
export function s3CallOf(method: string, path: string): string {
  const { searchParams: query } = new URL(path, 'http://store')
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

/** The folder behind the prefix in which the object is, or whose objects are listed: `/bucket/prefix/folder/…`. */
export function s3FolderOf(path: string): string {
  const { pathname, searchParams: query } = new URL(path, 'http://store')
  return decodeURIComponent(query.get('prefix') ?? pathname.split('/').slice(2).join('/')).split('/')[1] ?? ''
}
