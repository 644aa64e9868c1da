// Names the statements of a node by what they do, so that another run finds the same call again.

/**
 * The text of a simple query, or of a query that is parsed, from PostgreSQL's frontend protocol. Null if the bytes are
 * neither.
 */
export function sqlOf(bytes: Buffer): string | null {
  const text = /^(?:Q[^]{4}|P[^]{4}[^\0]*\0)([^\0]+)/.exec(bytes.toString('latin1', 0, 2_000))?.[1]
  return text === undefined ? null : text.replaceAll(/\s+/g, ' ').trim().slice(0, 110)
}

/** A statement that ends a transaction is named after what it ends. */
export function createSqlNames(): (sql: string, connection: number) => string {
  const latest = new Map<number, string>()
  return (sql, connection) => {
    if (/^(commit|rollback)/i.test(sql)) return `sql ${sql.toUpperCase()} after ${latest.get(connection) ?? ''}`
    if (!/^(begin|select)/i.test(sql)) latest.set(connection, sql)
    return `sql ${sql}`
  }
}
