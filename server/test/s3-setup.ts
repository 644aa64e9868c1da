import type { TestProject } from 'vitest/node'
import { gatewayPlace, stopGateway } from '../../e2e/ground/s3.js'

/** One place for the object store of a run. Nothing is started before a test asks for it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const place = await gatewayPlace()
  project.provide('s3Place', place)
  return () => stopGateway(place)
}
