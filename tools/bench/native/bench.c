/*
 * The benchmarks in C. Reads lines `<operations> <name>` and answers each with `<nanoseconds> <checksum>`: the time of the measured part,
 * and a hash over what was computed, which the TypeScript has to reproduce. What a benchmark allocates lives as long as the process.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <time.h>

#include "page-table.h"
#include "remapping-unit.h"

#define ADDRESSES 4096
#define SOURCE_ID 0x0310
#define DOMAIN_ID 7
#define FIRST_PAGE 0x40000000ull /* 4 TiB */
#define GIB_PAGES 0x40000ull
#define BATCH_GIB 16
#define CUT_LEAVES 64

struct outcome {
  uint64_t ns;
  uint32_t checksum;
};

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* xorshift32: the same working set on both sides. */
static uint32_t random_state;
static uint32_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

static inline uint32_t mix(uint32_t hash, uint32_t value) { return hash * 31 + value; }

#include "host-memory.h"

/* Random addresses in the first `pages` pages, a power of two. */
static void make_addresses(uint64_t *iovas, uint32_t pages) {
  random_state = 0x2545f491;
  for (int i = 0; i < ADDRESSES; i++) {
    uint64_t page = FIRST_PAGE + (next_random() & (pages - 1));
    iovas[i] = page << 12 | (next_random() & 0xfff);
  }
}

/* A unit whose IOTLB is full of pages of one size. */
static struct remapping_unit *hot_unit(uint32_t entries, int size) {
  struct remapping_unit *unit = remapping_unit_new(table_memory_new(0x1000, 16));
  random_state = 0x9e3779b9;
  for (uint32_t i = 0; i < entries; i++) {
    uint64_t frame = (uint64_t)(next_random() & 0x3fffffff) >> (9 * size) << (9 * size);
    uint64_t iova = (FIRST_PAGE + ((uint64_t)i << (9 * size))) << 12;
    iotlb_fill(&unit->iotlb, SOURCE_ID, DOMAIN_ID, iova, size + 1, leaf_entry(size + 1, frame, 3), 3);
  }
  return unit;
}

static struct outcome iotlb_hit(uint32_t operations, int size) {
  static const uint32_t entries[3] = {64, 32, 4};
  static struct remapping_unit *units[3];
  static uint64_t iovas[ADDRESSES];
  make_addresses(iovas, entries[size] << (9 * size));
  if (units[size] == NULL) units[size] = hot_unit(entries[size], size);
  struct remapping_unit *unit = units[size];
  uint32_t hash = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++)
    hash = mix(hash, (uint32_t)translate(unit, SOURCE_ID, iovas[i & (ADDRESSES - 1)], i & 1));
  uint64_t ns = now() - start;
  return (struct outcome){ns, mix(hash, (uint32_t)unit->iotlb.hits[size])};
}

static struct outcome iotlb_hit_4k(uint32_t operations) { return iotlb_hit(operations, 0); }
static struct outcome iotlb_hit_2m(uint32_t operations) { return iotlb_hit(operations, 1); }
static struct outcome iotlb_hit_1g(uint32_t operations) { return iotlb_hit(operations, 2); }

/* An IOTLB made at the first call, with the first pages in it. */
static struct iotlb *small_iotlb(struct iotlb **made) {
  if (*made == NULL) {
    *made = must(calloc(1, sizeof(**made)));
    iotlb_init(*made);
    for (uint32_t i = 0; i < 64; i++)
      iotlb_fill(*made, SOURCE_ID, DOMAIN_ID, (FIRST_PAGE + i) << 12, 1, leaf_entry(1, 0x100000 + i, 3), 3);
  }
  return *made;
}

static struct outcome iotlb_miss(uint32_t operations) {
  static struct iotlb *made;
  struct iotlb *iotlb = small_iotlb(&made);
  static uint32_t turn = 64;
  uint32_t hash = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    uint32_t page = turn++ & 1023; /* sixteen times what the cache holds, in turn: LRU never has it */
    uint64_t iova = (FIRST_PAGE + page) << 12;
    struct iotlb_hit hit = iotlb_lookup(iotlb, SOURCE_ID, iova);
    hash = mix(hash, (uint32_t)hit.slot);
    if (hit.size == NONE)
      iotlb_fill(iotlb, SOURCE_ID, DOMAIN_ID, iova, 1, leaf_entry(1, 0x100000 + page, 3), 3);
  }
  uint64_t ns = now() - start;
  return (struct outcome){ns, mix(mix(hash, (uint32_t)iotlb->fills), (uint32_t)iotlb->evictions)};
}

static struct outcome iotlb_invalidation(uint32_t operations) {
  static struct iotlb *made;
  struct iotlb *iotlb = small_iotlb(&made);
  uint32_t hash = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    uint32_t page = (i * 29) & 63;
    uint64_t iova = (FIRST_PAGE + page) << 12;
    hash = mix(hash, iotlb_invalidate_pages(iotlb, DOMAIN_ID, iova, 0));
    iotlb_fill(iotlb, SOURCE_ID, DOMAIN_ID, iova, 1, leaf_entry(1, 0x100000 + page, 3), 3);
  }
  uint64_t ns = now() - start;
  return (struct outcome){ns, mix(mix(hash, (uint32_t)iotlb->fills), (uint32_t)iotlb->dropped)};
}

/* A table in 4 MiB of table pages of its own, and what its changes owe. */
struct world {
  struct page_table *table;
  struct gather gather;
};

static struct world *world_new(void) {
  struct world *made = must(calloc(1, sizeof(*made)));
  made->table = page_table_new(table_memory_new(0x1000, 1024));
  gather_reset(&made->gather);
  return made;
}

static void must_be(int64_t got, int64_t expected, const char *what) {
  if (got == expected) return;
  fprintf(stderr, "%s: %" PRId64 ", expected %" PRId64 "\n", what, got, expected);
  exit(1);
}

/* A frame that makes `level` the largest leaf that fits: aligned to it and to nothing larger. */
static uint64_t frame_for(int level) { return 0x4000000ull + (level == 1 ? 1 : level == 2 ? 512 : 0); }

static void map_gib(struct world *world, uint64_t count, int level) {
  for (uint64_t i = 0; i < count; i++)
    must_be(page_table_map(world->table, FIRST_PAGE + i * GIB_PAGES, frame_for(level) + i * GIB_PAGES, GIB_PAGES, 3,
                           &world->gather),
            0, "map");
}

static void unmap_gib(struct world *world, uint64_t count) {
  for (uint64_t i = 0; i < count; i++)
    must_be(page_table_unmap(world->table, FIRST_PAGE + i * GIB_PAGES, GIB_PAGES, &world->gather), GIB_PAGES, "unmap");
}

/* After the flush, which both sides leave out. */
static void free_gathered(struct world *world) { gather_free(&world->gather, world->table->memory); }

static uint32_t hash_level(const struct page_table *table, uint64_t pfn, int level, uint64_t base, uint32_t hash) {
  const entry_t *entries = table_at(table->memory, pfn);
  for (int i = 0; i < ENTRIES; i++) {
    uint64_t entry = entry_load(entries + i);
    uint64_t page = base + ((uint64_t)i << level_shift(level));
    if (!is_present(entry)) continue;
    if (is_leaf(entry, level)) hash = mix(mix(mix(hash, (uint32_t)page), (uint32_t)entry), (uint32_t)(entry >> 32));
    else hash = hash_level(table, entry_frame(entry), level - 1, page, hash);
  }
  return hash;
}

/* Over every leaf in address order and the counts. */
static uint32_t hash_table(const struct page_table *table) {
  uint32_t hash = hash_level(table, table->root_pfn, table->levels, 0, 0);
  for (int level = 1; level <= 3; level++) hash = mix(hash, (uint32_t)table->leaves[level]);
  return mix(hash, (uint32_t)table->table_pages);
}

static uint32_t hash_gather(uint32_t hash, const struct gather *gather) {
  return mix(mix(mix(hash, (uint32_t)gather->first_page), (uint32_t)gather->last_page), (uint32_t)gather->table_count);
}

/* The table whose map and unmap are measured; empty between two rounds. */
static struct world *changing_world(void) {
  static struct world *made;
  return made ? made : (made = world_new());
}

/* The table where 1 GiB is mapped in leaves of a level, or 16 GiB in 1G leaves. */
static uint64_t mapped_gib(int level) { return level == 3 ? BATCH_GIB : 1; }
static struct page_table *mapped_table(int level) {
  static struct world *made[4];
  if (made[level] == NULL) {
    made[level] = world_new();
    map_gib(made[level], mapped_gib(level), level);
  }
  return made[level]->table;
}

static struct outcome walk_to(uint32_t operations, int level) {
  struct page_table *table = mapped_table(level);
  struct reserved_masks masks = reserved_masks_for(46);
  static uint64_t iovas[ADDRESSES];
  make_addresses(iovas, (uint32_t)(mapped_gib(level) * GIB_PAGES));
  static struct walk_state *walker; /* not in the frame, where the compiler would drop what is not asked for here */
  if (walker == NULL) walker = must(calloc(1, sizeof(*walker)));
  uint32_t hash = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    walk_begin(walker, table->root_pfn, table->levels, iovas[i & (ADDRESSES - 1)], i & 1, SS_RIGHTS);
    hash = mix(hash, walk(table->memory, &masks, walker) == WALK_TRANSLATED ? (uint32_t)walk_frame(walker) : 0);
  }
  uint64_t ns = now() - start;
  return (struct outcome){ns, mix(hash, walker->reads)};
}

static struct outcome walk_to_4k(uint32_t operations) { return walk_to(operations, 1); }
static struct outcome walk_to_2m(uint32_t operations) { return walk_to(operations, 2); }
static struct outcome walk_to_1g(uint32_t operations) { return walk_to(operations, 3); }

/* A unit with one device whose domain is that table. */
static struct remapping_unit *attached_unit(struct page_table *table) {
  struct remapping_unit *unit = remapping_unit_new(table->memory);
  uint64_t context = table_allocate(table->memory);
  entry_t *entry = table_at(table->memory, context) + (SOURCE_ID & 0xff) * 2;
  entry_store(entry + 1, 2 | DOMAIN_ID << 8);
  entry_store(entry, table->root_pfn << 12 | 1);
  entry_store(table_at(table->memory, unit->root_pfn) + (SOURCE_ID >> 8) * 2, context << 12 | 1);
  return unit;
}

static struct outcome translation_miss(uint32_t operations) {
  static struct remapping_unit *unit;
  if (unit == NULL) unit = attached_unit(mapped_table(1));
  static uint64_t iovas[ADDRESSES];
  make_addresses(iovas, GIB_PAGES);
  uint32_t hash = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    uint64_t iova = iovas[i & (ADDRESSES - 1)];
    int64_t frame = translate(unit, SOURCE_ID, iova, i & 1);
    if (frame == MISS) frame = translate_miss(unit, SOURCE_ID, iova, i & 1);
    hash = mix(hash, (uint32_t)frame);
  }
  uint64_t ns = now() - start;
  hash = mix(mix(mix(hash, (uint32_t)unit->walk_reads), (uint32_t)unit->paging_cache_hits),
             (uint32_t)unit->iotlb.evictions);
  return (struct outcome){ns, hash};
}

/* Batches of 1 GiB maps of one GiB each; the time of the maps, or that of the unmaps. */
static struct outcome change(uint32_t operations, uint64_t batch, int level, bool unmap) {
  struct world *at = changing_world();
  uint64_t ns = 0;
  uint32_t hash = 0;
  for (uint32_t done = 0; done < operations; done += (uint32_t)batch) {
    if (batch > operations - done) batch = operations - done;
    uint64_t start = now();
    map_gib(at, batch, level);
    uint64_t mapped = now();
    if (done == 0) hash = hash_table(at->table);
    uint64_t again = now();
    unmap_gib(at, batch);
    uint64_t end = now();
    ns += unmap ? end - again : mapped - start;
    hash = mix(hash_gather(hash, &at->gather), hash_table(at->table));
    free_gathered(at);
  }
  return (struct outcome){ns, hash};
}

static struct outcome map_4k(uint32_t operations) { return change(operations, 1, 1, false); }
static struct outcome map_2m(uint32_t operations) { return change(operations, BATCH_GIB, 2, false); }
static struct outcome unmap_4k(uint32_t operations) { return change(operations, 1, 1, true); }
static struct outcome unmap_2m(uint32_t operations) { return change(operations, BATCH_GIB, 2, true); }

static struct outcome cut_1g(uint32_t operations) {
  struct world *at = changing_world();
  uint64_t ns = 0;
  uint32_t hash = 0;
  uint32_t batch = CUT_LEAVES;
  for (uint32_t done = 0; done < operations; done += batch) {
    if (batch > operations - done) batch = operations - done;
    map_gib(at, batch, 3);
    uint64_t start = now();
    for (uint64_t i = 0; i < batch; i++)
      must_be(page_table_cut(at->table, FIRST_PAGE + i * GIB_PAGES + 0x12345 + i * 37, 1, &at->gather), 0, "cut");
    ns += now() - start;
    hash = mix(hash_gather(hash, &at->gather), done == 0 ? hash_table(at->table) : 0);
    unmap_gib(at, batch);
    free_gathered(at);
  }
  return (struct outcome){ns, hash};
}

static const struct {
  const char *name;
  struct outcome (*run)(uint32_t operations);
} benchmarks[] = {
    {"iotlb hit 4K", iotlb_hit_4k},
    {"iotlb hit 2M", iotlb_hit_2m},
    {"iotlb hit 1G", iotlb_hit_1g},
    {"walk to 4K", walk_to_4k},
    {"walk to 2M", walk_to_2m},
    {"walk to 1G", walk_to_1g},
    {"map 1 GiB as 4K", map_4k},
    {"map 1 GiB as 2M", map_2m},
    {"unmap 1 GiB of 4K", unmap_4k},
    {"unmap 1 GiB of 2M", unmap_2m},
    {"cut 4K out of 1G", cut_1g},
    {"iotlb miss and fill", iotlb_miss},
    {"iotlb page invalidation and fill", iotlb_invalidation},
    {"translation miss", translation_miss},
    {"host fault 4K", host_fault},
    {"host MADV_DONTNEED 4K", host_drop},
    {"host MADV_PAGEOUT 4K", host_page_out},
    {"host notifier call", host_notifier},
};

static struct outcome run(uint32_t operations, const char *name) {
  for (size_t i = 0; i < sizeof(benchmarks) / sizeof(*benchmarks); i++)
    if (strcmp(benchmarks[i].name, name) == 0) return benchmarks[i].run(operations);
  fprintf(stderr, "no benchmark `%s`\n", name);
  exit(1);
}

int main(void) {
  char line[128];
  while (fgets(line, sizeof(line), stdin)) {
    uint32_t operations;
    char name[100];
    if (sscanf(line, "%" SCNu32 " %99[^\n]", &operations, name) != 2 || operations == 0) {
      fprintf(stderr, "not `<operations> <name>`: %s", line);
      return 1;
    }
    struct outcome outcome = run(operations, name);
    printf("%" PRIu64 " %" PRIu32 "\n", outcome.ns, outcome.checksum);
    fflush(stdout);
  }
  return 0;
}
