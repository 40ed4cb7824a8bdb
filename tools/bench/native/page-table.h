/* The driver's side of a second-stage table: map, unmap and cut, by the rules of the TypeScript, written as Linux would write them. */
#ifndef PAGE_TABLE_H
#define PAGE_TABLE_H

#include <errno.h>

#include "walk.h"

#define NO_PAGE UINT64_MAX
#define MAX_GATHERED 4096

/* What a change owes the caches: one range, and the tables that may be freed after its invalidation. */
struct gather {
  uint64_t first_page;
  uint64_t last_page;
  size_t table_count;
  uint64_t tables[MAX_GATHERED];
};

struct page_table {
  struct table_memory *memory;
  uint64_t root_pfn;
  int levels;
  int largest_leaf_level;
  int host_address_width;
  int64_t table_pages;
  int64_t leaves[4];
  int64_t splits[4];
};

static inline void gather_reset(struct gather *gather) {
  gather->first_page = NO_PAGE;
  gather->last_page = 0;
  gather->table_count = 0;
}

static inline void gather_add(struct gather *gather, uint64_t page, uint64_t pages) {
  uint64_t last = page + pages - 1;
  if (page < gather->first_page) gather->first_page = page;
  if (last > gather->last_page) gather->last_page = last;
}

static void gather_table(struct gather *gather, uint64_t pfn, uint64_t page, uint64_t pages) {
  if (gather->table_count == MAX_GATHERED) {
    fputs("gather is full\n", stderr);
    exit(1);
  }
  gather->tables[gather->table_count++] = pfn;
  gather_add(gather, page, pages);
}

static void gather_free(struct gather *gather, struct table_memory *memory) {
  for (size_t i = 0; i < gather->table_count; i++) table_free(memory, gather->tables[i]);
  gather_reset(gather);
}

static struct page_table *page_table_new(struct table_memory *memory) {
  struct page_table *table = must(calloc(1, sizeof(*table)));
  table->memory = memory;
  table->root_pfn = table_allocate(memory);
  table->levels = 4;
  table->largest_leaf_level = 3;
  table->host_address_width = 46;
  table->table_pages = 1;
  return table;
}

static inline uint64_t leaf_entry(int level, uint64_t frame, unsigned rights) {
  return frame << 12 | rights | (level > 1 ? SS_PAGE_SIZE : 0);
}

static inline uint64_t table_entry(uint64_t pfn) { return pfn << 12 | SS_READ | SS_WRITE; }

static int check_range(const struct page_table *table, uint64_t page, uint64_t pages) {
  uint64_t input_pages = 1ull << (9 * table->levels);
  if (pages == 0) return -EINVAL;
  return page >= input_pages || pages > input_pages - page ? -ERANGE : 0;
}

/* Whether a table and all below it hold no leaf. */
static bool is_vacant(struct page_table *table, uint64_t pfn, int level) {
  const entry_t *entries = table_at(table->memory, pfn);
  for (int i = 0; i < ENTRIES; i++) {
    uint64_t entry = entry_load(entries + i);
    if (!is_present(entry)) continue;
    if (is_leaf(entry, level) || !is_vacant(table, entry_frame(entry), level - 1)) return false;
  }
  return true;
}

static void gather_vacant(struct page_table *table, uint64_t pfn, int level, uint64_t page, struct gather *gather) {
  const entry_t *entries = table_at(table->memory, pfn);
  for (int i = 0; level > 1 && i < ENTRIES; i++) {
    uint64_t entry = entry_load(entries + i);
    if (is_present(entry))
      gather_vacant(table, entry_frame(entry), level - 1, page + ((uint64_t)i << level_shift(level)), gather);
  }
  gather_table(gather, pfn, page, 1ull << level_shift(level + 1));
  table->table_pages--;
}

/* Goes down to the table at `level`; a missing table is installed by compare-and-swap. 0, or an error and no table. */
static int descend(struct page_table *table, uint64_t page, int level, entry_t **found) {
  entry_t *entries = table_at(table->memory, table->root_pfn);
  for (int above = table->levels; above > level; above--) {
    entry_t *slot = entries + table_index(page, above);
    uint64_t entry = entry_load(slot);
    if (!is_present(entry)) {
      uint64_t child = table_allocate(table->memory);
      if (child == 0) return -ENOMEM;
      if (atomic_compare_exchange_strong(slot, &entry, table_entry(child))) {
        table->table_pages++;
        entry = table_entry(child);
      } else {
        table_free(table->memory, child); /* somebody else was faster: use theirs */
      }
    }
    if (is_leaf(entry, above)) return -EADDRINUSE;
    entries = table_at(table->memory, entry_frame(entry));
  }
  *found = entries;
  return 0;
}

static int best_level(const struct page_table *table, uint64_t page, uint64_t frame, uint64_t pages) {
  int level = table->largest_leaf_level;
  while (level > 1) {
    uint64_t size = 1ull << level_shift(level);
    if (((page | frame) & (size - 1)) == 0 && pages >= size) break;
    level--;
  }
  return level;
}

/* Maps with the largest leaves that fit, a run of them in each table: the leaf size cannot grow before the table ends. */
static int page_table_map(struct page_table *table, uint64_t page, uint64_t frame, uint64_t pages, unsigned rights,
                          struct gather *gather) {
  uint64_t limit = 1ull << (table->host_address_width - 12);
  int error = check_range(table, page, pages);
  if (error) return error;
  if (!(rights & SS_RIGHTS)) return -EINVAL;
  if (frame >= limit || pages > limit - frame) return -ERANGE;
  while (pages > 0) {
    int level = best_level(table, page, frame, pages);
    int shift = level_shift(level);
    entry_t *entries;
    error = descend(table, page, level, &entries);
    if (error) return error;
    unsigned first = table_index(page, level);
    uint64_t count = pages >> shift;
    if (count > ENTRIES - first) count = ENTRIES - first;
    uint64_t leaf = leaf_entry(level, frame, rights);
    for (uint64_t i = 0; i < count; i++, leaf += 4096ull << shift) {
      entry_t *slot = entries + first + i;
      uint64_t present = entry_load(slot);
      if (is_present(present)) {
        if (is_leaf(present, level) || !is_vacant(table, entry_frame(present), level - 1)) {
          table->leaves[level] += (int64_t)i;
          return -EADDRINUSE;
        }
        entry_store(slot, 0);
        gather_vacant(table, entry_frame(present), level - 1, page + (i << shift), gather);
      }
      entry_store(slot, leaf);
    }
    table->leaves[level] += (int64_t)count;
    page += count << shift;
    frame += count << shift;
    pages -= count << shift;
  }
  return 0;
}

struct unmap_pass {
  struct page_table *table;
  struct gather *gather;
  uint64_t page;
  uint64_t end;
  uint64_t unmapped;
  bool stopped;
};

/* Clears leaves, children before parents; unlinks tables that are covered whole. Stops at a hole, as Linux does. */
static void clear_level(struct unmap_pass *pass, uint64_t pfn, int level, uint64_t base) {
  struct page_table *table = pass->table;
  entry_t *entries = table_at(table->memory, pfn);
  int shift = level_shift(level);
  uint64_t size = 1ull << shift;
  unsigned index = pass->page > base ? (unsigned)((pass->page - base) >> shift) : 0;
  uint64_t page = base + ((uint64_t)index << shift);
  uint64_t first_cleared = page, cleared = 0;
  for (; index < ENTRIES && page < pass->end && !pass->stopped; index++, page += size) {
    uint64_t entry = entry_load(entries + index);
    if (!is_present(entry)) {
      pass->stopped = true;
    } else if (is_leaf(entry, level)) {
      if (page < pass->page) { /* inside a large leaf: nothing is unmapped */
        pass->stopped = true;
        break;
      }
      entry_store(entries + index, 0);
      if (cleared++ == 0) first_cleared = page;
    } else {
      uint64_t child = entry_frame(entry);
      clear_level(pass, child, level - 1, page);
      if (pass->stopped || page < pass->page || page + size > pass->end) continue;
      entry_store(entries + index, 0);
      table->table_pages--;
      gather_table(pass->gather, child, page, size);
    }
  }
  if (cleared == 0) return;
  table->leaves[level] -= (int64_t)cleared;
  pass->unmapped += cleared << shift;
  gather_add(pass->gather, first_cleared, page - first_cleared);
}

/* 4K pages unmapped, or an error. */
static int64_t page_table_unmap(struct page_table *table, uint64_t page, uint64_t pages, struct gather *gather) {
  int error = check_range(table, page, pages);
  if (error) return error;
  struct unmap_pass pass = {.table = table, .gather = gather, .page = page, .end = page + pages};
  clear_level(&pass, table->root_pfn, table->levels, 0);
  return (int64_t)pass.unmapped;
}

/* Private tables of one sub-tree: two from 1G to 4K for a hole in one 2M leaf, three for one that spans two. */
struct subtree {
  uint64_t pfns[4];
  int count;
};

static inline bool crosses(uint64_t boundary, uint64_t page, uint64_t size) {
  return boundary > page && boundary < page + size;
}

/* Builds, out of everybody's sight, the table that replaces a leaf: all leaves, then the one or two that are cut further. */
static uint64_t build_subtree(struct page_table *table, uint64_t leaf, int level, uint64_t start, uint64_t page,
                              uint64_t end, struct subtree *built) {
  uint64_t child = table_allocate(table->memory);
  if (child == 0) return 0;
  built->pfns[built->count++] = child;
  entry_t *entries = table_at(table->memory, child);
  int shift = level_shift(level - 1);
  uint64_t size = 1ull << shift;
  uint64_t entry = level - 1 == 1 ? leaf & ~SS_PAGE_SIZE : leaf;
  for (int i = 0; i < ENTRIES; i++) entry_store(entries + i, entry + ((uint64_t)i << (shift + 12)));
  if (level == 2) return child;
  uint64_t boundaries[2] = {page, end};
  for (int b = 0; b < 2; b++) {
    if (!crosses(boundaries[b], start, 1ull << level_shift(level))) continue;
    uint64_t index = (boundaries[b] - start) >> shift;
    uint64_t at = start + (index << shift);
    uint64_t found = entry_load(entries + index);
    if (!crosses(boundaries[b], at, size) || !is_leaf(found, level - 1)) continue;
    uint64_t grandchild = build_subtree(table, found, level - 1, at, page, end, built);
    if (grandchild == 0) return 0;
    entry_store(entries + index, table_entry(grandchild));
  }
  return child;
}

static void account_cut(struct page_table *table, int level, int built) {
  table->leaves[level]--;
  table->splits[level]++;
  table->table_pages += built;
  table->leaves[level - 1] += ENTRIES;
  if (level != 3) return;
  table->leaves[2] -= built - 1;
  table->leaves[1] += ENTRIES * (built - 1);
  table->splits[2] += built - 1;
}

/* Replaces the leaf that has `boundary` strictly inside, if there is one, by one compare-and-swap. */
static int cut_at(struct page_table *table, uint64_t boundary, uint64_t page, uint64_t end, struct gather *gather) {
  uint64_t pfn = table->root_pfn;
  for (int level = table->levels; level > 1; level--) {
    uint64_t size = 1ull << level_shift(level);
    if ((boundary & (size - 1)) == 0) return 0;
    entry_t *slot = table_at(table->memory, pfn) + table_index(boundary, level);
    uint64_t entry = entry_load(slot);
    while (is_present(entry) && is_leaf(entry, level)) {
      uint64_t start = boundary & ~(size - 1);
      struct subtree built = {.count = 0};
      uint64_t child = build_subtree(table, entry, level, start, page, end, &built);
      if (child != 0 && atomic_compare_exchange_strong(slot, &entry, table_entry(child))) {
        account_cut(table, level, built.count);
        gather_add(gather, start, size);
        return 0;
      }
      for (int i = 0; i < built.count; i++) table_free(table->memory, built.pfns[i]);
      if (child == 0) return -ENOMEM;
    }
    if (!is_present(entry)) return 0;
    pfn = entry_frame(entry);
  }
  return 0;
}

/* Makes both ends of the range leaf boundaries; nobody who walks meanwhile faults. */
static int page_table_cut(struct page_table *table, uint64_t page, uint64_t pages, struct gather *gather) {
  int error = check_range(table, page, pages);
  if (!error) error = cut_at(table, page, page, page + pages, gather);
  return error ? error : cut_at(table, page + pages, page, page + pages, gather);
}

#endif
