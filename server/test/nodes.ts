import { v4 as uuidv4 } from 'uuid'
import { eventually } from './harness.js'
import type { useProgram } from './program.js'
import type { S3Config } from './s3.js'

export type Node = Awaited<ReturnType<ReturnType<typeof useProgram>['serve']>>

const LEASE_MS = 5_000

/** The settings that the nodes of a cluster share: one database, and one prefix in one bucket. */
export const nodesOn = (databaseUrl: string, { endpoint, region, bucket, credentials }: S3Config) => ({
  LANDFALL_DATABASE_URL: databaseUrl,
  LANDFALL_S3_ENDPOINT: endpoint,
  LANDFALL_S3_REGION: region,
  LANDFALL_S3_BUCKET: bucket,
  LANDFALL_S3_ACCESS_KEY_ID: credentials.accessKeyId,
  LANDFALL_S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  LANDFALL_S3_PREFIX: `${uuidv4()}/`,
  LANDFALL_LEASE_MS: String(LEASE_MS),
  LANDFALL_COMPLETER_INTERVAL_MS: '500',
})

export const operationAt = async (node: Node, id: string) =>
  (await (await node.request('GET', `/operations/${id}`)).json()) as { recoveryPoint: string; offset: number }

export const untilReferenced = (node: Node, id: string) =>
  eventually(
    () => operationAt(node, id),
    ({ recoveryPoint }) => /referenced|completed/.test(recoveryPoint),
    20_000,
  )
