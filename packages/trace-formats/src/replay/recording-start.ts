/**
 * What a log cannot tell because it began too late: QEMU may answer from an entry that it cached before the first line.
 * Nothing can predate the log any more once translation was switched, everything or the domain was invalidated, or the
 * page itself was walked or invalidated.
 */
export class RecordingStart {
  #all = false;
  readonly #domains = new Map<number, { all: boolean; readonly ranges: Set<string> }>();
  readonly #masks = new Set<number>();

  /** Everything was invalidated. */
  knowAll(): void {
    this.#all = true;
    this.#domains.clear();
  }

  /** A domain was invalidated. */
  knowDomain(did: number): void {
    if (this.#all) return;
    this.#domains.set(did, { all: true, ranges: new Set() });
  }

  /** A range was invalidated, or (mask 0) a page walked. */
  knowPages(did: number, iova: bigint, addressMask: number): void {
    if (this.#all) return;
    let domain = this.#domains.get(did);
    if (domain?.all) return;
    if (domain === undefined) {
      domain = { all: false, ranges: new Set() };
      this.#domains.set(did, domain);
    }
    this.#masks.add(addressMask);
    domain.ranges.add(rangeKey(iova, addressMask));
  }

  /** Whether an entry for this address may be older than the log. */
  mayPredate(did: number, iova: bigint): boolean {
    if (this.#all) return false;
    const domain = this.#domains.get(did);
    if (domain === undefined) return true;
    if (domain.all) return false;
    for (const mask of this.#masks) if (domain.ranges.has(rangeKey(iova, mask))) return false;
    return true;
  }
}

const rangeKey = (iova: bigint, addressMask: number): string =>
  `${addressMask}:${(iova >> BigInt(12 + addressMask)).toString(36)}`;
