/**
 * How a suite registers its tests: `test` of vitest, of `node:test`, or of any other runner will do.
 *
 * @example ledgerContract(test, () => createMyFixture())
 */
export type RegisterTest = (name: string, body: () => Promise<void>) => void

/** Runs one case on a fixture of its own and disposes of it, whatever happens. */
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
