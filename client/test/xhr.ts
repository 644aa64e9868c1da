import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http'

/** How many bytes are given to the socket at a time, which is what `progress` reports. */
const PIECE_BYTES = 64 * 1024

/** The part of XMLHttpRequest that the tus transfer uses, over Node's http. */
export class NodeXhr extends EventTarget {
  readonly upload = new EventTarget()
  withCredentials = false
  status = 0
  responseText = ''
  private method = ''
  private url = ''
  private readonly headers: Record<string, string> = {}
  private answerHeaders: IncomingMessage['headers'] = {}
  private request: ClientRequest | null = null
  private isOver = false

  open(method: string, url: string): void {
    this.method = method
    this.url = url
  }
  setRequestHeader(name: string, value: string): void {
    this.headers[name] = value
  }
  getResponseHeader(name: string): string | null {
    const value = this.answerHeaders[name.toLowerCase()]
    return value === undefined ? null : String(value)
  }
  abort(): void {
    this.isOver = true
    this.request?.destroy()
  }
  send(body: Blob | null): void {
    void this.transmit(body)
  }

  private over(name: 'load' | 'error'): void {
    if (this.isOver) return
    this.isOver = true
    this.dispatchEvent(new Event(name))
  }
  private async transmit(body: Blob | null): Promise<void> {
    const bytes = await (body ?? new Blob()).arrayBuffer().then(
      (buffer) => Buffer.from(buffer),
      () => null,
    )
    if (bytes === null) return this.over('error')
    if (this.isOver) return
    // Each request has its own connection. Whether a browser reuses a connection is tested in a browser.
    const headers = { ...this.headers, 'Content-Length': bytes.length }
    const request = httpRequest(this.url, { method: this.method, headers, agent: false })
    this.request = request
    request.on('error', () => this.over('error'))
    request.on('response', (response) => {
      this.status = response.statusCode ?? 0
      this.answerHeaders = response.headers
      response.setEncoding('utf8')
      response.on('data', (text: string) => (this.responseText += text))
      response.on('end', () => this.over('load'))
      response.on('error', () => this.over('error'))
    })
    for (let at = 0; at < bytes.length && !request.destroyed; at += PIECE_BYTES) {
      const piece = bytes.subarray(at, at + PIECE_BYTES)
      if (!request.write(piece)) await new Promise((resolve) => request.once('drain', resolve).once('close', resolve))
      this.upload.dispatchEvent(Object.assign(new Event('progress'), { loaded: at + piece.length }))
    }
    request.end()
    this.upload.dispatchEvent(new Event('load'))
  }
}
