/**
 * How a contract registers its tests. It fits `test` of vitest, of `node:test`, and of other runners.
 *
 * @example ledgerContract(test, () => createMyFixture())
 */
export type RegisterTest = (name: string, body: () => Promise<void>) => void

/** Runs one case on its own fixture, and disposes of the fixture whatever happens. */
export async function withFixture<F extends { dispose(): Promise<void> }>(
  create: () => Promise<F>,
  body: (fixture: F) => Promise<void>,
): Promise<void> {
  const fixture = await create()
  try {
    await body(fixture)
  } finally {
    await fixture.dispose()
  }
}
