import { type DetailedError, Upload, type UploadOptions } from 'tus-js-client'

/** What a client told its user at the end. */
export interface Told {
  readonly success: boolean
  /** The status of the answer that made the client give up; null if there was no answer. */
  readonly status: number | null
  /** The reason that the client gives for a failure; null after a success. */
  readonly why: string | null
}

/** The last part of the upload's URL. It is empty before the upload has a URL. */
export const idOf = ({ url }: { readonly url: string | null }): string => url?.split('/').at(-1) ?? ''

/** The status of the answer that made the client give up; null if there was no answer. */
export const statusOf = (error: Error | DetailedError): number | null =>
  'originalResponse' in error ? (error.originalResponse?.getStatus() ?? null) : null

/** Begins an upload with tus-js-client, which is unmodified and has its default settings except for these options. */
export function uploadByTus(bytes: Buffer, options: UploadOptions): { upload: Upload; told: Promise<Told> } {
  let tell = (_told: Told): void => {}
  const told = new Promise<Told>((resolve) => (tell = resolve))
  const upload = new Upload(bytes, {
    ...options,
    metadata: { filetype: 'application/octet-stream', ...options.metadata },
    onSuccess(payload) {
      tell({ success: true, status: null, why: null })
      options.onSuccess?.(payload)
    },
    onError(error) {
      tell({ success: false, status: statusOf(error), why: error.message })
      options.onError?.(error)
    },
  })
  upload.start()
  return { upload, told }
}
