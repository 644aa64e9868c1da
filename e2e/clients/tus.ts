import { type DetailedError, Upload, type UploadOptions } from 'tus-js-client'

/** What a client told its user in the end. */
export interface Told {
  readonly success: boolean
  /** The status of the answer that made it give up; null: there was none. */
  readonly status: number | null
  /** Why it gave up, in its own words; null after a success. */
  readonly why: string | null
}

/** The last part of the upload's URL; empty until there is one. */
export const idOf = ({ url }: { readonly url: string | null }): string => url?.split('/').at(-1) ?? ''

/** The status of the answer that made it give up; null: there was none. */
export const statusOf = (error: Error | DetailedError): number | null =>
  'originalResponse' in error ? (error.originalResponse?.getStatus() ?? null) : null

/** Begins an upload by tus-js-client, unmodified and with its default settings but for these. */
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
