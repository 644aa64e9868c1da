export async function benchEffects(_count: number, _say: (text: string) => void): Promise<boolean> {
  return Promise.resolve(true)
}
