/*
 * One set-associative array with exact LRU: look-up by hash chains, replacement by a linked list in each set, a dropped
 * slot at the old end. One cache line holds two slots.
 */
#ifndef SET_ASSOCIATIVE_H
#define SET_ASSOCIATIVE_H

#include "table-memory.h"

#define NONE (-1)

struct slot {
  uint64_t address; /* low bits cleared to the granularity */
  int32_t tag;      /* NONE: empty */
  int32_t chain_next;
  int32_t older;
  int32_t newer;
};

struct set_associative {
  struct slot *slots;
  int32_t *bucket_head;
  int32_t *newest;
  int32_t *oldest;
  uint64_t mask;
  uint32_t bucket_mask;
  uint32_t set_mask;
  uint32_t ways;
  uint32_t slot_count;
  uint32_t count;
  int shift;
};

static inline uint32_t cache_page(const struct set_associative *cache, uint64_t address) {
  return (uint32_t)(address >> cache->shift);
}

static inline uint32_t cache_bucket(const struct set_associative *cache, uint64_t address) {
  uint32_t page = cache_page(cache, address);
  uint32_t hash = (page ^ (uint32_t)(address >> 32)) * 0x9e3779b1u;
  return (page ^ (hash >> 15)) & cache->bucket_mask;
}

static inline void cache_unlink(struct set_associative *cache, int32_t slot, uint32_t set) {
  int32_t older = cache->slots[slot].older;
  int32_t newer = cache->slots[slot].newer;
  if (newer == NONE) cache->newest[set] = older;
  else cache->slots[newer].older = older;
  if (older == NONE) cache->oldest[set] = newer;
  else cache->slots[older].newer = newer;
}

static inline void cache_link_newest(struct set_associative *cache, int32_t slot, uint32_t set) {
  int32_t head = cache->newest[set];
  cache->slots[slot].older = head;
  cache->slots[slot].newer = NONE;
  cache->newest[set] = slot;
  if (head == NONE) cache->oldest[set] = slot;
  else cache->slots[head].newer = slot;
}

static inline void cache_link_oldest(struct set_associative *cache, int32_t slot, uint32_t set) {
  int32_t tail = cache->oldest[set];
  cache->slots[slot].newer = tail;
  cache->slots[slot].older = NONE;
  cache->oldest[set] = slot;
  if (tail == NONE) cache->newest[set] = slot;
  else cache->slots[tail].older = slot;
}

static void cache_init(struct set_associative *cache, uint32_t sets, uint32_t ways, int shift) {
  uint32_t buckets = 2;
  cache->slot_count = sets * ways;
  while (buckets < 2 * cache->slot_count) buckets *= 2;
  cache->slots = must(calloc(cache->slot_count, sizeof(*cache->slots)));
  cache->bucket_head = must(malloc(buckets * sizeof(int32_t)));
  cache->newest = must(malloc(sets * sizeof(int32_t)));
  cache->oldest = must(malloc(sets * sizeof(int32_t)));
  cache->mask = ~((1ull << shift) - 1);
  cache->bucket_mask = buckets - 1;
  cache->set_mask = sets - 1;
  cache->ways = ways;
  cache->count = 0;
  cache->shift = shift;
  for (uint32_t i = 0; i < buckets; i++) cache->bucket_head[i] = NONE;
  for (uint32_t i = 0; i < sets; i++) cache->newest[i] = cache->oldest[i] = NONE;
  for (uint32_t i = 0; i < cache->slot_count; i++) {
    cache->slots[i].tag = NONE;
    cache_link_newest(cache, (int32_t)i, i / ways);
  }
}

static inline int32_t cache_find(const struct set_associative *cache, int32_t tag, uint64_t address) {
  if (cache->count == 0) return NONE;
  uint64_t key = address & cache->mask;
  int32_t slot = cache->bucket_head[cache_bucket(cache, key)];
  while (slot != NONE) {
    const struct slot *at = &cache->slots[slot];
    if (at->address == key && at->tag == tag) return slot;
    slot = at->chain_next;
  }
  return NONE;
}

static inline void cache_touch(struct set_associative *cache, int32_t slot) {
  if (cache->slots[slot].newer == NONE) return;
  uint32_t set = (uint32_t)slot / cache->ways;
  cache_unlink(cache, slot, set);
  cache_link_newest(cache, slot, set);
}

static inline int32_t cache_victim(const struct set_associative *cache, uint64_t address) {
  return cache->oldest[cache_page(cache, address) & cache->set_mask];
}

static inline void cache_drop(struct set_associative *cache, int32_t slot) {
  int32_t *link = &cache->bucket_head[cache_bucket(cache, cache->slots[slot].address)];
  while (*link != slot) link = &cache->slots[*link].chain_next;
  *link = cache->slots[slot].chain_next;
  cache->slots[slot].tag = NONE;
  cache->count--;
  uint32_t set = (uint32_t)slot / cache->ways;
  cache_unlink(cache, slot, set);
  cache_link_oldest(cache, slot, set);
}

static inline int32_t cache_insert(struct set_associative *cache, int32_t tag, uint64_t address) {
  int32_t slot = cache_victim(cache, address);
  if (cache->slots[slot].tag != NONE) cache_drop(cache, slot);
  uint64_t key = address & cache->mask;
  int32_t *head = &cache->bucket_head[cache_bucket(cache, key)];
  cache->slots[slot].tag = tag;
  cache->slots[slot].address = key;
  cache->slots[slot].chain_next = *head;
  *head = slot;
  cache->count++;
  cache_touch(cache, slot);
  return slot;
}

/* Finds the slot of (tag, address) or takes the victim's; counts an eviction. */
static inline int32_t cache_place(struct set_associative *cache, int32_t tag, uint64_t address, uint64_t *evictions) {
  int32_t slot = cache_find(cache, tag, address);
  if (slot != NONE) {
    cache_touch(cache, slot);
    return slot;
  }
  if (cache->slots[cache_victim(cache, address)].tag != NONE) ++*evictions;
  return cache_insert(cache, tag, address);
}

#endif
