import { describe, test } from 'vitest'
import { blobStoreContract } from '../src/contract/index.js'
import { s3Fixture, s3Server } from './s3.js'

const { missing, config } = await s3Server()

describe.skipIf(missing !== null)(`blob store contract: S3${missing === null ? '' : ` (${missing})`}`, () =>
  blobStoreContract(test, () => s3Fixture(config)),
)
