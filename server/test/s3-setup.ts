import type { TestProject } from 'vitest/node'
import { s3Place, stopS3 } from './s3.js'

/** One place for the object store of a run. Nothing is started before a test asks for it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const place = await s3Place()
  project.provide('s3Place', place)
  return () => stopS3(place.directory)
}
