import type { KindsOf } from '@landfall/shared'
import type { DemoUploads } from '../demo.js'

/** What can be uploaded here: types only, nothing of the server reaches the page. */
export type DemoKinds = KindsOf<DemoUploads>
