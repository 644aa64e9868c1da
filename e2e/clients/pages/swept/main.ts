/**
 * A page that shows nothing and runs the real client. A harness drives it from outside through `window.swept`, or lets
 * it act by itself and report what the client tells it.
 */
import { driven } from './driven.js'
import { visited } from './visited.js'

Object.assign(globalThis, { swept: { ...driven, ...visited } })
