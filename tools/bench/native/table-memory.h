/* Table pages in memory, and the way from a frame number to a pointer that a page walker has to take. */
#ifndef TABLE_MEMORY_H
#define TABLE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 512
#define POISON 0x7fffffffffffffffull

typedef _Atomic uint64_t entry_t;

struct table_memory {
  uint64_t base_pfn;
  uint64_t pages;
  entry_t *entries;
  uint8_t *allocated;
  uint32_t *freed;
  size_t freed_count;
  size_t fresh;
  size_t used;
  size_t peak;
};

static void *must(void *pointer) {
  if (!pointer) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return pointer;
}

static struct table_memory *table_memory_new(uint64_t base_pfn, uint64_t pages) {
  struct table_memory *memory = must(calloc(1, sizeof(*memory)));
  memory->base_pfn = base_pfn;
  memory->pages = pages;
  memory->entries = must(aligned_alloc(4096, pages * 4096));
  memset(memory->entries, 0, pages * 4096);
  memory->allocated = must(calloc(pages, 1));
  memory->freed = must(calloc(pages, sizeof(*memory->freed)));
  return memory;
}

/* The table at a frame, or NULL: a frame outside the memory is a fault of the walk, never a stray read. */
static inline entry_t *table_at(const struct table_memory *memory, uint64_t pfn) {
  uint64_t page = pfn - memory->base_pfn;
  return page < memory->pages ? memory->entries + page * ENTRIES : NULL;
}

/* Single copies of an entry, as READ_ONCE and WRITE_ONCE. */
static inline uint64_t entry_load(const entry_t *entry) { return atomic_load_explicit(entry, memory_order_relaxed); }
static inline void entry_store(entry_t *entry, uint64_t value) {
  atomic_store_explicit(entry, value, memory_order_relaxed);
}

/* A zeroed table page, or 0 when the memory is full. */
static inline uint64_t table_allocate(struct table_memory *memory) {
  uint64_t index;
  if (memory->freed_count > 0) {
    index = memory->freed[--memory->freed_count];
    memset(memory->entries + index * ENTRIES, 0, 4096);
  } else if (memory->fresh < memory->pages) {
    index = memory->fresh++;
  } else {
    return 0;
  }
  memory->allocated[index] = 1;
  if (++memory->used > memory->peak) memory->peak = memory->used;
  return memory->base_pfn + index;
}

/* Poisons the page, so that a walk that still gets here faults. */
static inline void table_free(struct table_memory *memory, uint64_t pfn) {
  uint64_t index = pfn - memory->base_pfn;
  if (index >= memory->pages || !memory->allocated[index]) {
    fprintf(stderr, "table page 0x%llx freed twice or never allocated\n", (unsigned long long)pfn);
    exit(1);
  }
  memory->allocated[index] = 0;
  for (int i = 0; i < ENTRIES; i++) entry_store(memory->entries + index * ENTRIES + i, POISON);
  memory->freed[memory->freed_count++] = (uint32_t)index;
  memory->used--;
}

#endif
