import { describe, test } from 'vitest'
import { blobStoreContract, ledgerContract } from '../src/contract/index.js'
import { fileFixture, sqliteFixture } from './fixtures.js'

describe('ledger contract: SQLite', () => ledgerContract(test, sqliteFixture))
describe('blob store contract: files', () => blobStoreContract(test, fileFixture))
