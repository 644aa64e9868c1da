import { type BaseLogger, pino } from 'pino'

/** What Landfall needs of a logger; pino's and any child of it will do. */
export type Logger = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>

/** JSON lines on standard error, gathered for a moment; standard output belongs to the program. */
export const createLogger = (level: string): Logger =>
  pino({ name: 'landfall', level }, pino.destination({ fd: 2, sync: false, minLength: 4096, periodicFlush: 200 }))
