/** A mapping of the reference. */
export interface ReferenceMapping {
  readonly space: number;
  readonly startPage: number;
  readonly pages: number;
  /** What it maps of a file: null for anonymous memory. */
  readonly file: { readonly id: number; readonly offset: number; readonly isPrivate: boolean } | null;
}

/**
 * Memory without paging: a map from page to content, and nothing that could be got wrong. What the host holds of it, how, and where,
 * must not be seen from outside.
 */
export class ReferenceMm {
  readonly mappings: ReferenceMapping[] = [];
  /** By space and page, or by file and offset: the last tag written. What is not there reads as zeros. */
  readonly #content = new Map<string, number>();

  mmap(mapping: ReferenceMapping): void {
    this.mappings.push(mapping);
  }

  munmap(space: number, startPage: number, pages: number): void {
    const endPage = startPage + pages;
    for (const old of this.mappings.splice(0)) {
      const oldEnd = old.startPage + old.pages;
      if (old.space !== space || oldEnd <= startPage || old.startPage >= endPage) {
        this.mappings.push(old);
        continue;
      }
      if (old.startPage < startPage) this.mappings.push(part(old, old.startPage, startPage));
      if (oldEnd > endPage) this.mappings.push(part(old, endPage, oldEnd));
    }
    this.#forget(space, startPage, pages);
  }

  /** Anonymous memory and private copies are gone; a shared file keeps its content. */
  dontNeed(space: number, startPage: number, pages: number): void {
    this.#forget(space, startPage, pages);
  }

  find(space: number, page: number): ReferenceMapping | undefined {
    return this.mappings.find(
      (each) => each.space === space && page >= each.startPage && page < each.startPage + each.pages,
    );
  }

  write(space: number, page: number, tag: number): void {
    const mapping = this.find(space, page);
    if (mapping) this.#content.set(ownKey(mapping, page), tag);
  }

  /** The tag that a read gives; 0 for zeros; undefined where nothing is mapped. */
  read(space: number, page: number): number | undefined {
    const mapping = this.find(space, page);
    if (!mapping) return undefined;
    const own = this.#content.get(ownKey(mapping, page));
    if (own !== undefined || !mapping.file) return own ?? 0;
    return this.#content.get(fileKey(mapping, page)) ?? 0;
  }

  exit(space: number): void {
    for (const { startPage, pages } of this.mappings.filter((each) => each.space === space))
      this.munmap(space, startPage, pages);
  }

  /** Every page of a space that was written to. */
  *written(space: number): Generator<number, void, void> {
    for (const key of this.#content.keys()) {
      const [kind, page] = key.split(':');
      if (kind === `mm${space}`) yield Number(page);
    }
  }

  #forget(space: number, startPage: number, pages: number): void {
    for (const page of [...this.written(space)])
      if (page >= startPage && page < startPage + pages) this.#content.delete(`mm${space}:${page}`);
  }
}

const part = (old: ReferenceMapping, startPage: number, endPage: number): ReferenceMapping => ({
  ...old,
  startPage,
  pages: endPage - startPage,
  file: old.file && { ...old.file, offset: old.file.offset + startPage - old.startPage },
});

const ownKey = (mapping: ReferenceMapping, page: number): string =>
  mapping.file && !mapping.file.isPrivate ? fileKey(mapping, page) : `mm${mapping.space}:${page}`;

const fileKey = ({ file, startPage }: ReferenceMapping, page: number): string =>
  `file${file?.id}:${page - startPage + (file?.offset ?? 0)}`;
