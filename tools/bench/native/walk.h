/* Second-stage entries (VT-d Rev 5.10, 9.8) and the hardware's page walk with its checks, in the legacy mode's order. */
#ifndef WALK_H
#define WALK_H

#include "table-memory.h"

#define SS_READ 0x1ull
#define SS_WRITE 0x2ull
#define SS_RIGHTS 0x3ull
#define SS_PAGE_SIZE 0x80ull
#define SS_SNOOP 0x800ull
#define SS_ADDRESS 0x000ffffffffff000ull
#define SS_BIT_62 0x4000000000000000ull

enum { ACCESS_READ = 0, ACCESS_WRITE = 1 };
enum { WALK_TRANSLATED = 1, WALK_FAULTED = 2 };
enum { FAULT_WRITE = 0x5, FAULT_READ = 0x6, FAULT_TABLE_ACCESS = 0x7, FAULT_RESERVED = 0xc };

/* Reserved bits by level and kind of entry: table, leaf. */
struct reserved_masks {
  uint64_t bits[6][2];
};

static struct reserved_masks reserved_masks_for(unsigned host_address_width) {
  struct reserved_masks masks = {0};
  uint64_t above = SS_ADDRESS & ~((1ull << host_address_width) - 1);
  for (int level = 1; level <= 5; level++) {
    uint64_t offset = level == 1 ? 0 : level == 2 ? 0x001ff000ull : 0x3ffff000ull;
    masks.bits[level][0] = above | SS_BIT_62 | SS_SNOOP | (level > 3 ? SS_PAGE_SIZE : 0);
    masks.bits[level][1] = above | SS_BIT_62 | SS_SNOOP | offset;
  }
  return masks;
}

static inline bool is_present(uint64_t entry) { return (entry & SS_RIGHTS) != 0; }
static inline bool is_leaf(uint64_t entry, int level) { return level == 1 || (level <= 3 && (entry & SS_PAGE_SIZE)); }
static inline uint64_t entry_frame(uint64_t entry) { return (entry & SS_ADDRESS) >> 12; }
static inline int level_shift(int level) { return 9 * (level - 1); }
static inline unsigned table_index(uint64_t page, int level) { return (page >> level_shift(level)) & (ENTRIES - 1); }

struct walk_state {
  uint64_t iova;
  uint64_t table_pfn;
  uint64_t entry;
  unsigned access;
  unsigned rights;
  int level;
  int status;
  int fault_reason;
  unsigned reads;
};

static inline void walk_begin(struct walk_state *state, uint64_t table_pfn, int level, uint64_t iova, unsigned access,
                              unsigned rights) {
  *state = (struct walk_state){
      .iova = iova, .table_pfn = table_pfn, .level = level, .access = access, .rights = rights};
}

/* Reads one entry and decides: translated, faulted, or 0: one level down. */
static inline int walk_level(const struct table_memory *memory, const struct reserved_masks *masks,
                             struct walk_state *state) {
  int level = state->level;
  const entry_t *table = table_at(memory, state->table_pfn);
  if (!table) {
    state->fault_reason = FAULT_TABLE_ACCESS;
    return state->status = WALK_FAULTED;
  }
  uint64_t entry = entry_load(table + table_index(state->iova >> 12, level));
  state->reads++;
  state->entry = entry;
  state->rights &= entry;
  if (!(state->rights & (state->access == ACCESS_WRITE ? SS_WRITE : SS_READ))) {
    state->fault_reason = state->access == ACCESS_WRITE ? FAULT_WRITE : FAULT_READ;
    return state->status = WALK_FAULTED;
  }
  bool leaf = is_leaf(entry, level);
  if (entry & masks->bits[level][leaf]) {
    state->fault_reason = FAULT_RESERVED;
    return state->status = WALK_FAULTED;
  }
  if (leaf) return state->status = WALK_TRANSLATED;
  state->table_pfn = entry_frame(entry);
  state->level = level - 1;
  return 0;
}

/* To the end, in the processor's registers; the walker has what came of it afterwards. */
static inline int walk(const struct table_memory *memory, const struct reserved_masks *masks,
                       struct walk_state *walker) {
  struct walk_state state = *walker;
  int status;
  while ((status = walk_level(memory, masks, &state)) == 0) {
  }
  *walker = state;
  return status;
}

/* The 4K frame that a translated address falls into. */
static inline uint64_t walk_frame(const struct walk_state *state) {
  uint64_t offset = (1ull << level_shift(state->level)) - 1;
  return entry_frame(state->entry) + ((state->iova >> 12) & offset);
}

#endif
