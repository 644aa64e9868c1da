import { type BaseLogger, pino } from 'pino'
import { loggable } from './errors.js'

/** What Landfall needs of a logger. A pino logger and any child of it fit. */
export type Logger = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>

/** JSON lines on standard error, buffered for a moment. Standard output belongs to the program. */
export const createLogger = (level: string): Logger =>
  pino({ name: 'landfall', level }, pino.destination({ fd: 2, sync: false, minLength: 4096, periodicFlush: 200 }))

/**
 * The same logger, but the errors that it gets are texts without parameters of statements (owners, names of files,
 * metadata), whatever it does with them.
 */
export function withSafeErrors(logger: Logger): Logger {
  const told = (facts: object): object => ('err' in facts ? { ...facts, err: loggable(facts.err) } : facts)
  const at =
    (level: keyof Logger) =>
    (facts: unknown, text?: string): void =>
      typeof facts === 'object' && facts !== null ? logger[level](told(facts), text) : logger[level](facts)
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
