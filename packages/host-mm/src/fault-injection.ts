/** Things that go wrong on purpose. Each is asked when it could happen; a host asks none by default. */
export interface FaultInjection {
  /** Whether the n-th allocation of a folio (from 1, all orders counted) finds no memory. */
  readonly allocationFails?: (n: number, order: number) => boolean;
}
