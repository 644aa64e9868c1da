export * from './operation.js'
export * from './paths.js'
export * from './problem.js'
export * from './wire.js'
