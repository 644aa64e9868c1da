import * as v from 'valibot'

/** Of one node of an application on PostgreSQL and S3, as its program's only argument, in JSON. */
export const nodeSettings = v.object({
  databaseUrl: v.string(),
  s3: v.object({
    endpoint: v.string(),
    region: v.string(),
    bucket: v.string(),
    accessKeyId: v.string(),
    secretAccessKey: v.string(),
  }),
  /** How long one call of the object store may take. */
  callTimeoutMs: v.number(),
  partBytes: v.number(),
})

/**
 * What the application writes itself, with each file that has arrived: in the same transaction where it can. Whoever
 * starts the nodes makes the table.
 */
export const ARRIVALS = `CREATE TABLE arrivals (operation_id text NOT NULL, name text NOT NULL)`
