import type { RandomStream } from '@faultline/sim';
import type { GuestLayout } from './guest-layout.ts';

/** Random picks before a search in order. */
const RANDOM_ATTEMPTS = 32;

/**
 * The guest's allocator for device memory: runs of pages, each handed out once, from the bottom of RAM up. It also knows which pages
 * the balloon holds and which ones a request is using, so that nobody is given a page of the other's.
 */
export class GuestPageAllocator {
  readonly #layout: GuestLayout;
  readonly #reserved = new Set<number>();
  readonly #ballooned = new Set<number>();
  /** Requests in flight by page. */
  readonly #inUse = new Map<number, number>();
  #nextIndex: number;

  /** @param firstIndex first page of RAM (by index) to hand out: what lies below is the kernel's */
  constructor(layout: GuestLayout, firstIndex: number) {
    this.#layout = layout;
    this.#nextIndex = firstIndex;
  }

  /** Takes one page out of circulation, such as a page-table page. */
  reserve(page: number): void {
    this.#reserved.add(page);
  }

  /** Pages that the balloon holds. */
  get ballooned(): number {
    return this.#ballooned.size;
  }

  /** Gives a page to the balloon. @returns false if it is taken, in the balloon, or in use by a request */
  inflate(page: number): boolean {
    if (this.#reserved.has(page) || this.#ballooned.has(page) || this.#inUse.has(page)) return false;
    this.#ballooned.add(page);
    return true;
  }

  /** Takes a page back from the balloon. */
  deflate(page: number): void {
    this.#ballooned.delete(page);
  }

  /** Whether the guest has given the page to its host. */
  inBalloon(page: number): boolean {
    return this.#ballooned.has(page);
  }

  /** A request begins to use a page; the balloon leaves it alone until {@link release}. */
  use(page: number): void {
    this.#inUse.set(page, (this.#inUse.get(page) ?? 0) + 1);
  }

  /** A request has ended that used the page. */
  release(page: number): void {
    const users = (this.#inUse.get(page) ?? 0) - 1;
    if (users > 0) this.#inUse.set(page, users);
    else this.#inUse.delete(page);
  }

  /** Whether a page was allocated or reserved. */
  isTaken(page: number): boolean {
    return this.#reserved.has(page);
  }

  /**
   * A random page that nobody took, the balloon included, of `count` pages of RAM from `firstIndex` on.
   * @returns the page, or -1 if all of them are taken
   */
  pickFree(random: RandomStream, firstIndex: number, count: number): number {
    for (let attempt = 0; attempt < RANDOM_ATTEMPTS; attempt++) {
      const page = this.#layout.pageAt(firstIndex + random.below(count));
      if (!this.#reserved.has(page) && !this.#ballooned.has(page)) return page;
    }
    // Nearly all of them are taken: look through them in order.
    for (let i = 0; i < count; i++) {
      const page = this.#layout.pageAt(firstIndex + i);
      if (!this.#reserved.has(page) && !this.#ballooned.has(page)) return page;
    }
    return -1;
  }

  /** Pages for rings and buffers, contiguous where RAM is. @throws RangeError when RAM is used up */
  allocate(pages: number, purpose: string): number[] {
    const taken: number[] = [];
    while (taken.length < pages) {
      if (this.#nextIndex >= this.#layout.pages)
        throw new RangeError(
          `guest memory: no room for ${pages} pages of ${purpose}; the VM is too small for its devices`,
        );
      const page = this.#layout.pageAt(this.#nextIndex++);
      if (this.#reserved.has(page)) continue;
      this.#reserved.add(page);
      taken.push(page);
    }
    return taken;
  }
}
