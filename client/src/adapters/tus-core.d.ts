/** The part of tus-js-client's core that is used, as read in its source. Its own types describe the whole package. */
declare module 'tus-js-client/lib/upload.js' {
  export interface HttpResponse {
    getStatus(): number
    getHeader(header: string): string | undefined
    getBody(): string
    getUnderlyingObject(): unknown
  }
  export interface HttpRequest {
    getMethod(): string
    getURL(): string
    setHeader(header: string, value: string): void
    getHeader(header: string): string | undefined
    setProgressHandler(handler: (bytesSent: number) => void): void
    send(body: Blob | null): Promise<HttpResponse>
    abort(): Promise<void>
    getUnderlyingObject(): unknown
  }
  export interface HttpStack {
    createRequest(method: string, url: string): HttpRequest
    getName(): string
  }
  interface Source {
    size: number
    slice(start: number, end: number): Promise<{ value: Blob; done: boolean }>
    close(): void
  }
  interface Options {
    protocol: 'tus-v1'
    uploadUrl: string
    headers: Record<string, string>
    chunkSize: number
    retryDelays: null
    storeFingerprintForResuming: false
    fingerprint: () => Promise<null>
    httpStack: HttpStack
    fileReader: { openFile(input: Blob, chunkSize: number): Promise<Source> }
    onChunkComplete: (chunkBytes: number, acceptedBytes: number, sizeBytes: number) => void
    onError: (error: Error & { originalResponse?: HttpResponse | null }) => void
  }
  export default class Upload {
    constructor(source: Blob, options: Options)
    start(): void
    abort(): Promise<void>
  }
}
