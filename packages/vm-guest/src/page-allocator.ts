import type { RandomStream } from '@faultline/sim';
import type { GuestLayout } from './guest-layout.ts';

/** Random picks before a search in order. */
const RANDOM_ATTEMPTS = 32;

/** The guest's allocator for device memory: runs of pages, each handed out once, from the bottom of RAM up. */
export class GuestPageAllocator {
  readonly #layout: GuestLayout;
  readonly #reserved = new Set<number>();
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

  /** Whether a page was allocated or reserved. */
  isTaken(page: number): boolean {
    return this.#reserved.has(page);
  }

  /**
   * A random page that nobody took, of `count` pages of RAM from `firstIndex` on.
   * @returns the page, or -1 if all of them are taken
   */
  pickFree(random: RandomStream, firstIndex: number, count: number): number {
    for (let attempt = 0; attempt < RANDOM_ATTEMPTS; attempt++) {
      const page = this.#layout.pageAt(firstIndex + random.below(count));
      if (!this.#reserved.has(page)) return page;
    }
    // Nearly all of them are taken: look through them in order.
    for (let i = 0; i < count; i++) {
      const page = this.#layout.pageAt(firstIndex + i);
      if (!this.#reserved.has(page)) return page;
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
