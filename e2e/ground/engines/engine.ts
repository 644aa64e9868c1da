/** A browser as the stories for several engines see it. The stories do not know which library drives it. */
export interface Engine {
  readonly name: string
  /** Opens a new page, and resolves when it has loaded. */
  open(url: string): Promise<EnginePage>
  close(): Promise<void>
}

export interface EnginePage {
  reload(): Promise<void>
  /** Picks files through the element, as a person does. */
  pick(selector: string, ...paths: string[]): Promise<void>
  click(selector: string): Promise<void>
  /** Runs the body of an asynchronous function in the page. What it returns must be JSON. */
  run<T>(body: string): Promise<T>
  /** Uncaught errors of the page. */
  readonly errors: readonly string[]
  close(): Promise<void>
}

/** The text of each element, trimmed. */
export const textsOf = (page: EnginePage, selector: string): Promise<string[]> =>
  page.run(`return [...document.querySelectorAll(${JSON.stringify(selector)})].map((node) => node.textContent.trim())`)
