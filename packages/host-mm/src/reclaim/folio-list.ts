import { assert } from '@faultline/sim';

/** The links of all {@link FolioList}s of a host, by folio id, in typed arrays. */
export class FolioLinks {
  prev: Int32Array = new Int32Array(1024);
  next: Int32Array = new Int32Array(1024);
  /** Number of the list that a folio is on, from 1; 0 for none. */
  list: Uint16Array = new Uint16Array(1024);
  readonly lists: FolioList[] = [];

  /** The list that a folio is on, or null. */
  listOf(folio: number): FolioList | null {
    return this.lists[(this.list[folio] ?? 0) - 1] ?? null;
  }

  /** Makes room for a folio id. */
  reach(folio: number): void {
    if (folio < this.list.length) return;
    const length = Math.max(folio + 1, this.list.length * 2);
    const prev = new Int32Array(length);
    const next = new Int32Array(length);
    const list = new Uint16Array(length);
    prev.set(this.prev);
    next.set(this.next);
    list.set(this.list);
    this.prev = prev;
    this.next = next;
    this.list = list;
  }
}

/** A doubly linked list of folios, newest at the head; a folio is on one list at most. All operations are O(1). */
export class FolioList {
  readonly name: string;
  readonly #links: FolioLinks;
  readonly #number: number;
  #head = 0;
  #tail = 0;
  /** Sum of the sizes of its folios, in 4 KiB pages. */
  pages = 0;
  folios = 0;

  constructor(links: FolioLinks, name: string) {
    this.#links = links;
    this.name = name;
    this.#number = links.lists.push(this);
  }

  /** The oldest folio, or 0. */
  get tail(): number {
    return this.#tail;
  }

  has(folio: number): boolean {
    return this.#links.list[folio] === this.#number;
  }

  /** Puts a folio of that many pages before all others. */
  addHead(folio: number, pages: number): void {
    this.#insert(folio, pages, 0, this.#head);
  }

  /** Puts a folio behind all others: next to be looked at. */
  addTail(folio: number, pages: number): void {
    this.#insert(folio, pages, this.#tail, 0);
  }

  /** Puts a folio next to one that is on the list, as the younger of the two. */
  addYounger(folio: number, pages: number, than: number): void {
    assert(this.has(than), () => `folio ${than} is not on ${this.name}`);
    this.#insert(folio, pages, this.#links.prev[than]!, than);
  }

  /** Takes a folio off. Asserts that it is on. @param pages its size when it was put on */
  remove(folio: number, pages: number): void {
    const { prev, next, list } = this.#links;
    assert(folio > 0 && this.has(folio), () => `folio ${folio} is not on ${this.name}`);
    const before = prev[folio]!;
    const after = next[folio]!;
    if (before === 0) this.#head = after;
    else next[before] = after;
    if (after === 0) this.#tail = before;
    else prev[after] = before;
    list[folio] = 0;
    this.pages -= pages;
    this.folios--;
  }

  /** A folio on the list has become smaller by that many pages: it was split, and its pieces follow. */
  shrink(pages: number): void {
    this.pages -= pages;
  }

  /** All folios, oldest first; for checks and walks that do not change the list. */
  *oldestFirst(): Generator<number, void, void> {
    for (let folio = this.#tail; folio !== 0; folio = this.#links.prev[folio]!) yield folio;
  }

  /** Links a folio in between two neighbours, `before` towards the head; 0 stands for the end of the list. */
  #insert(folio: number, pages: number, before: number, after: number): void {
    this.#links.reach(folio);
    const { prev, next, list } = this.#links;
    assert(folio > 0 && list[folio] === 0, () => `folio ${folio} is on a list already`);
    prev[folio] = before;
    next[folio] = after;
    if (before === 0) this.#head = folio;
    else next[before] = folio;
    if (after === 0) this.#tail = folio;
    else prev[after] = folio;
    list[folio] = this.#number;
    this.pages += pages;
    this.folios++;
  }
}
