/**
 * A page without anything to look at, on the real client. A harness drives it from outside by `window.swept`, or lets it
 * do all by itself and tell what it is told.
 */
import { driven } from './driven.js'
import { visited } from './visited.js'

Object.assign(globalThis, { swept: { ...driven, ...visited } })
