import { filePath, OWNER_TAG_HEADER, TUS_RESUMABLE } from '@landfall/shared'
import Upload, { type HttpRequest, type HttpResponse, type HttpStack } from 'tus-js-client/lib/upload.js'
import { createWatchdog, WATCH_EVERY_MS } from '../pace.js'
import type { ChunkOutcome, Clock, Owner, Refusal, Transfer } from '../ports.js'
import type { Authorization } from './authorization.js'
import { jsonOf, refusalOf } from './refusal.js'

type Headers = Record<string, string | undefined>

const fileReader = {
  openFile: async (input: Blob) => ({
    size: input.size,
    slice: async (start: number, end: number) => ({ value: input.slice(start, end), done: end >= input.size }),
    close: () => {},
  }),
}

const answer = (status: number, headerOf: (name: string) => string | undefined, body: string): HttpResponse => ({
  getStatus: () => status,
  getHeader: headerOf,
  getBody: () => body,
  getUnderlyingObject: () => undefined,
})

/**
 * Sends the bytes with the engine of tus-js-client 4.3.1: one instance for each chunk, with our own HTTP stack and
 * without retries, because the sequence makes all decisions. The engine's first HEAD is answered here, from the offset
 * that the PUT or the last PATCH returned. A real HEAD would cost a request, and it takes the server's lock.
 *
 * @see https://tus.io/protocols/resumable-upload (1.0.0, PATCH)
 */
export function createTusTransfer(options: {
  endpoint: string
  credentials: RequestCredentials
  authorization: Authorization
  clock: Clock
  owner: () => Owner
}): Transfer {
  const { endpoint, credentials, authorization, clock } = options
  return {
    async send({ id, source, offsetBytes, endBytes, lastChunkMs, onSent }, signal) {
      const tag = await options.owner().read(signal)
      if (!tag.ok) return signal.aborted ? { kind: 'stopped' } : { kind: 'refused', refusal: tag }
      const granted = await authorization.read(signal).catch(() => null)
      // `start(); abort()` in one tick would still send. So nothing is started that has already been ended.
      if (signal.aborted) return { kind: 'stopped' }
      if (granted === null) return { kind: 'broken' }
      const { headers, asked } = granted
      return new Promise<ChunkOutcome>((resolve) => {
        const bodyBytes = endBytes - offsetBytes
        const watchdog = createWatchdog(bodyBytes, lastChunkMs, clock.nowMs())
        const known: Headers = {
          'Upload-Offset': String(offsetBytes),
          'Upload-Length': String(source.size),
          'Tus-Resumable': TUS_RESUMABLE,
        }
        /** The owner tag of the answer. */
        let said: string | null = null
        const judged = (status: number, refusal: Refusal | null): Refusal | null =>
          options.owner().judge(tag.value, { said, status, refusal })
        const over = new AbortController()
        const finish = (outcome: ChunkOutcome): void => {
          if (over.signal.aborted) return
          over.abort()
          signal.removeEventListener('abort', stop)
          void upload.abort()
          resolve(outcome)
        }
        const stop = (): void => finish({ kind: 'stopped' })

        const patch = (url: string): HttpRequest => {
          const xhr = new XMLHttpRequest()
          const sent: Headers = {}
          xhr.open('PATCH', url)
          xhr.withCredentials = credentials === 'include'
          return {
            getMethod: () => 'PATCH',
            getURL: () => url,
            setHeader: (name, value) => {
              xhr.setRequestHeader(name, value)
              sent[name] = value
            },
            getHeader: (name) => sent[name],
            setProgressHandler: () => {
              xhr.upload.addEventListener('progress', ({ loaded }) => {
                watchdog.progress(loaded)
                onSent()
              })
              // If there was no `progress` event, only `load` reports the last bytes.
              xhr.upload.addEventListener('load', () => watchdog.progress(bodyBytes))
            },
            send: (body) =>
              new Promise((answered, failed) => {
                const fail = (): void => failed(new Error('no answer'))
                xhr.addEventListener('error', fail)
                xhr.addEventListener('load', () => {
                  said = xhr.getResponseHeader(OWNER_TAG_HEADER)
                  answered(answer(xhr.status, (name) => xhr.getResponseHeader(name) ?? undefined, xhr.responseText))
                })
                void watch()
                xhr.send(body)
              }),
            abort: async () => xhr.abort(),
            getUnderlyingObject: () => xhr,
          }
        }
        const watch = async (): Promise<void> => {
          while (!over.signal.aborted) {
            await clock.sleep(WATCH_EVERY_MS, over.signal)
            if (watchdog.stalled(clock.nowMs())) finish({ kind: 'broken' })
          }
        }
        const httpStack: HttpStack = {
          getName: () => 'landfall',
          createRequest: (method, url) =>
            method === 'PATCH' ? patch(url) : { ...patchless, getMethod: () => method, getURL: () => url },
        }
        const patchless = {
          setHeader: () => {},
          getHeader: () => undefined,
          setProgressHandler: () => {},
          send: async () => answer(200, (name) => known[name], ''),
          abort: async () => {},
          getUnderlyingObject: () => undefined,
        }
        const refused = (response: HttpResponse | null | undefined): ChunkOutcome => {
          if (!response) return { kind: 'broken' }
          const status = response.getStatus()
          const retryAfter = response.getHeader('Retry-After') ?? null
          const plain = refusalOf(status, jsonOf(response.getBody()), retryAfter, clock.wallMs())
          const refusal = judged(status, plain) ?? plain
          const isAgain = status === 401 && authorization.refused(asked)
          return { kind: 'refused', refusal: isAgain ? { ...refusal, retryAfterMs: 0 } : refusal }
        }
        const upload = new Upload(source, {
          protocol: 'tus-v1',
          uploadUrl: endpoint + filePath(id),
          headers: { ...Object.fromEntries(headers), [OWNER_TAG_HEADER]: tag.value },
          chunkSize: bodyBytes,
          retryDelays: null,
          storeFingerprintForResuming: false,
          fingerprint: async () => null,
          httpStack,
          fileReader,
          // After one chunk the sequence takes over again, also if the server stopped early and accepted less.
          onChunkComplete: (_sizeBytes, acceptedBytes) => {
            const refusal = judged(204, null)
            if (refusal !== null) return finish({ kind: 'refused', refusal })
            authorization.accepted()
            finish({ kind: 'accepted', offsetBytes: acceptedBytes })
          },
          onError: (error) => finish(refused(error.originalResponse)),
        })
        signal.addEventListener('abort', stop, { once: true })
        upload.start()
      })
    },
  }
}
