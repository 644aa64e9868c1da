import { type Agent, type ClientRequest, request as httpRequest } from 'node:http'

export interface Answer {
  readonly status: number
  readonly offset: number
  readonly problem: string
}

/** A client on a slow connection. It sends a piece every few milliseconds until it gets an answer. */
export function slowUpload(
  address: string,
  id: string,
  {
    bytes,
    stock = false,
    agent,
    headers = { 'X-Owner': 'ann' },
    ownerTag = '',
  }: {
    bytes: Uint8Array
    stock?: boolean
    agent?: Agent
    headers?: Record<string, string>
    /** Stock clients send none. */
    ownerTag?: string
  },
): { answered: Promise<Answer>; sent(): number } {
  let sentBytes = 0
  const request: ClientRequest = httpRequest(`${address}/files/${id}`, {
    method: 'PATCH',
    ...(agent === undefined ? {} : { agent }),
    headers: {
      ...headers,
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': String(bytes.length),
      ...(stock ? {} : { 'Landfall-Version': '1', 'Landfall-Owner': ownerTag }),
    },
  })
  const PIECE_BYTES = 1_000
  const timer = setInterval(() => {
    if (sentBytes >= bytes.length) return
    request.write(bytes.subarray(sentBytes, sentBytes + PIECE_BYTES))
    sentBytes += PIECE_BYTES
  }, 10)
  const answered = new Promise<Answer>((resolve, reject) => {
    request.on('error', reject)
    request.on('response', (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          offset: Number(response.headers['upload-offset'] ?? Number.NaN),
          problem: text,
        }),
      )
    })
  }).finally(() => {
    clearInterval(timer)
    request.destroy()
  })
  // The test may have failed before it waits for the answer, so a rejection is ignored here.
  answered.catch(() => {})
  return { answered, sent: () => sentBytes }
}
