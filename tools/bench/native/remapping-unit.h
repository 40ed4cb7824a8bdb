/*
 * The translation path of a remapping unit: IOTLB by page size, paging-structure caches by level, context cache, walk. Geometry and
 * rules are those of the TypeScript: look-up by source-id and address, invalidation by domain-id and address.
 */
#ifndef REMAPPING_UNIT_H
#define REMAPPING_UNIT_H

#include "set-associative.h"
#include "walk.h"

#define MISS (-1)
enum { FAULT_ROOT_NOT_PRESENT = 0x1, FAULT_CONTEXT_NOT_PRESENT = 0x2, FAULT_CONTEXT_INVALID = 0x3 };
enum { FAULT_BEYOND_WIDTH = 0x4, FAULT_CONTEXT_ACCESS = 0x9, FAULT_ROOT_RESERVED = 0xa, FAULT_CONTEXT_RESERVED = 0xb };

struct iotlb_payload {
  uint64_t leaf;
  int32_t did;
  uint32_t rights;
};

struct iotlb {
  struct set_associative stores[3]; /* 4K, 2M, 1G */
  struct iotlb_payload *payload[3];
  uint64_t lookups, hits[3], fills, evictions, invalidations, dropped;
};

struct iotlb_hit {
  int size; /* 0: 4K, 1: 2M, 2: 1G; NONE: a miss */
  int32_t slot;
};

static void iotlb_init(struct iotlb *iotlb) {
  static const uint32_t sets[3] = {16, 8, 1}, ways[3] = {4, 4, 4};
  for (int size = 0; size < 3; size++) {
    cache_init(&iotlb->stores[size], sets[size], ways[size], 12 + 9 * size);
    iotlb->payload[size] = must(calloc(sets[size] * ways[size], sizeof(struct iotlb_payload)));
  }
}

/* The smallest page that holds the address answers. */
static inline struct iotlb_hit iotlb_lookup(struct iotlb *iotlb, int32_t source_id, uint64_t iova) {
  iotlb->lookups++;
  for (int size = 0; size < 3; size++) {
    int32_t slot = cache_find(&iotlb->stores[size], source_id, iova);
    if (slot == NONE) continue;
    iotlb->hits[size]++;
    cache_touch(&iotlb->stores[size], slot);
    return (struct iotlb_hit){size, slot};
  }
  return (struct iotlb_hit){NONE, NONE};
}

static inline void iotlb_fill(struct iotlb *iotlb, int32_t source_id, int32_t did, uint64_t iova, int level,
                              uint64_t leaf, uint32_t rights) {
  iotlb->fills++;
  int32_t slot = cache_place(&iotlb->stores[level - 1], source_id, iova, &iotlb->evictions);
  iotlb->payload[level - 1][slot] = (struct iotlb_payload){leaf, did, rights};
}

/* Page-selective within a domain: entries that the aligned range of 2^address_mask pages covers whole. */
static inline uint32_t iotlb_invalidate_pages(struct iotlb *iotlb, int32_t did, uint64_t iova, int address_mask) {
  int range_shift = 12 + address_mask;
  uint32_t dropped = 0;
  for (int size = 0; size < 3; size++) {
    struct set_associative *cache = &iotlb->stores[size];
    if (cache->count == 0 || range_shift < cache->shift) continue;
    int steps = range_shift - cache->shift;
    if (steps < 31 && (1u << steps) <= cache->slot_count) {
      uint64_t start = iova & ~((1ull << range_shift) - 1);
      for (uint32_t page = 0; page < 1u << steps; page++) {
        uint64_t key = start + ((uint64_t)page << cache->shift);
        int32_t slot = cache->bucket_head[cache_bucket(cache, key)];
        while (slot != NONE) {
          int32_t next = cache->slots[slot].chain_next;
          if (cache->slots[slot].address == key && iotlb->payload[size][slot].did == did) {
            cache_drop(cache, slot);
            dropped++;
          }
          slot = next;
        }
      }
    } else {
      for (uint32_t slot = 0; slot < cache->slot_count; slot++) {
        const struct slot *at = &cache->slots[slot];
        bool inside = range_shift >= 64 || (at->address ^ iova) >> range_shift == 0;
        if (at->tag == NONE || !inside || iotlb->payload[size][slot].did != did) continue;
        cache_drop(cache, (int32_t)slot);
        dropped++;
      }
    }
  }
  iotlb->invalidations++;
  iotlb->dropped += dropped;
  return dropped;
}

struct paging_payload {
  uint64_t table_pfn;
  uint32_t rights;
};

struct paging_structure_cache {
  struct set_associative stores[4]; /* PDE, PDPE, PML4E, PML5E */
  struct paging_payload *payload[4];
  uint64_t lookups, hits[5], fills, evictions;
};

static void paging_cache_init(struct paging_structure_cache *cache) {
  static const uint32_t sets[4] = {16, 4, 1, 1}, ways[4] = {4, 4, 4, 2};
  for (int i = 0; i < 4; i++) {
    cache_init(&cache->stores[i], sets[i], ways[i], 21 + 9 * i);
    cache->payload[i] = must(calloc(sets[i] * ways[i], sizeof(struct paging_payload)));
  }
}

struct context_value {
  uint64_t table_pfn;
  int32_t did;
  uint8_t levels;
  uint8_t translation_type;
  bool fault_disable;
};

struct remapping_unit {
  struct table_memory *memory;
  struct reserved_masks masks;
  struct iotlb iotlb;
  struct paging_structure_cache paging_cache;
  struct set_associative context_cache;
  struct context_value context_values[64];
  uint64_t context_lookups, context_hits, walk_reads, paging_cache_hits;
  uint64_t root_pfn;
};

static struct remapping_unit *remapping_unit_new(struct table_memory *memory) {
  struct remapping_unit *unit = must(calloc(1, sizeof(*unit)));
  unit->memory = memory;
  unit->masks = reserved_masks_for(46);
  iotlb_init(&unit->iotlb);
  paging_cache_init(&unit->paging_cache);
  cache_init(&unit->context_cache, 1, 64, 0);
  unit->root_pfn = table_allocate(memory);
  return unit;
}

/* The hit path: the 4K frame, or MISS. */
static inline int64_t translate(struct remapping_unit *unit, int32_t source_id, uint64_t iova, unsigned access) {
  struct iotlb_hit hit = iotlb_lookup(&unit->iotlb, source_id, iova);
  if (hit.size == NONE) return MISS;
  const struct iotlb_payload *payload = &unit->iotlb.payload[hit.size][hit.slot];
  if (!(payload->rights & (access == ACCESS_WRITE ? SS_WRITE : SS_READ))) return MISS;
  uint64_t offset = (1ull << (12 + 9 * hit.size)) - 1;
  return (int64_t)(((payload->leaf & SS_ADDRESS & ~offset) | (iova & offset)) >> 12);
}

/* Context cache, else root and context entry from memory. */
static int context_of(struct remapping_unit *unit, int32_t source_id, struct context_value *value) {
  unit->context_lookups++;
  int32_t slot = cache_find(&unit->context_cache, 0, (uint64_t)source_id);
  if (slot != NONE) {
    unit->context_hits++;
    cache_touch(&unit->context_cache, slot);
    *value = unit->context_values[slot];
    return 0;
  }
  const entry_t *root = table_at(unit->memory, unit->root_pfn) + (source_id >> 8) * 2;
  uint64_t lo = entry_load(root);
  unit->walk_reads++;
  if (!(lo & 1)) return -FAULT_ROOT_NOT_PRESENT;
  if ((lo & 0xffe) || entry_load(root + 1)) return -FAULT_ROOT_RESERVED;
  const entry_t *table = table_at(unit->memory, entry_frame(lo));
  if (!table) return -FAULT_CONTEXT_ACCESS;
  const entry_t *context = table + (source_id & 0xff) * 2;
  lo = entry_load(context);
  uint64_t hi = entry_load(context + 1);
  unit->walk_reads++;
  if (!(lo & 1)) return -FAULT_CONTEXT_NOT_PRESENT;
  if ((lo & 0xff0) || (hi & ~0xffff7full)) return -FAULT_CONTEXT_RESERVED;
  *value = (struct context_value){.table_pfn = entry_frame(lo),
                                  .did = (int32_t)(hi >> 8 & 0xffff),
                                  .levels = (uint8_t)((hi & 7) + 2),
                                  .translation_type = (uint8_t)(lo >> 2 & 3),
                                  .fault_disable = (lo & 2) != 0};
  if (value->translation_type == 3 || value->levels != 4 || !table_at(unit->memory, value->table_pfn))
    return -FAULT_CONTEXT_INVALID;
  unit->context_values[cache_insert(&unit->context_cache, 0, (uint64_t)source_id)] = *value;
  return 0;
}

/* The miss path: the frame, or minus a fault reason. */
static int64_t translate_miss(struct remapping_unit *unit, int32_t source_id, uint64_t iova, unsigned access) {
  struct context_value context;
  int failed = context_of(unit, source_id, &context);
  if (failed) return failed;
  if (context.translation_type == 2) return (int64_t)(iova >> 12);
  if (iova >> (12 + 9 * context.levels)) return -FAULT_BEYOND_WIDTH;
  struct paging_structure_cache *caches = &unit->paging_cache;
  struct walk_state state;
  caches->lookups++;
  walk_begin(&state, context.table_pfn, context.levels, iova, access, SS_RIGHTS);
  for (int i = 0; i < 4; i++) {
    int32_t slot = cache_find(&caches->stores[i], context.did, iova);
    if (slot == NONE) continue;
    cache_touch(&caches->stores[i], slot);
    caches->hits[i + 1]++;
    unit->paging_cache_hits++;
    walk_begin(&state, caches->payload[i][slot].table_pfn, i + 1, iova, access, caches->payload[i][slot].rights);
    break;
  }
  int status;
  for (;;) {
    status = walk_level(unit->memory, &unit->masks, &state);
    unit->walk_reads++;
    if (status != 0) break;
    caches->fills++;
    int i = state.level - 1;
    int32_t slot = cache_place(&caches->stores[i], context.did, iova, &caches->evictions);
    caches->payload[i][slot] = (struct paging_payload){state.table_pfn, state.rights};
  }
  if (status == WALK_FAULTED) return -state.fault_reason;
  iotlb_fill(&unit->iotlb, source_id, context.did, iova, state.level, state.entry, state.rights);
  return (int64_t)walk_frame(&state);
}

#endif
