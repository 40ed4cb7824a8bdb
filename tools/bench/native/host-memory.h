/*
 * What the kernel under this benchmark does itself for the same operations: real page faults and madvise calls on private
 * memory in 4K pages. Swap is a file in memory (memfd) that the page is written to, since a machine may have no swap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t *host_pages(uint32_t pages) {
  uint8_t *memory = mmap(NULL, (size_t)pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  madvise(memory, (size_t)pages << 12, MADV_NOHUGEPAGE);
  return memory;
}

static void host_touch(uint8_t *memory, uint32_t pages) {
  for (uint32_t i = 0; i < pages; i++) *(volatile uint32_t *)(memory + ((size_t)i << 12)) = i + 1;
}

static uint32_t host_hash(const uint8_t *memory, uint32_t pages) {
  uint32_t hash = 0;
  for (uint32_t i = 0; i < pages; i++) hash = mix(hash, *(const volatile uint32_t *)(memory + ((size_t)i << 12)));
  return hash;
}

static struct outcome host_fault(uint32_t operations) {
  uint8_t *memory = host_pages(operations);
  uint64_t start = now();
  host_touch(memory, operations);
  uint64_t end = now();
  uint32_t hash = host_hash(memory, operations);
  munmap(memory, (size_t)operations << 12);
  return (struct outcome){end - start, hash};
}

static struct outcome host_drop(uint32_t operations) {
  uint8_t *memory = host_pages(operations);
  host_touch(memory, operations);
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) madvise(memory + ((size_t)i << 12), 4096, MADV_DONTNEED);
  uint64_t end = now();
  uint32_t hash = host_hash(memory, operations);
  munmap(memory, (size_t)operations << 12);
  return (struct outcome){end - start, mix(hash, operations)};
}

static struct outcome host_page_out(uint32_t operations) {
  uint8_t *memory = host_pages(operations);
  host_touch(memory, operations);
  int file = memfd_create("swap", 0);
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    uint8_t *page = memory + ((size_t)i << 12);
    if (pwrite(file, page, 4096, (off_t)i << 12) != 4096) exit(1);
    madvise(page, 4096, MADV_DONTNEED);
  }
  uint64_t end = now();
  munmap(memory, (size_t)operations << 12);
  uint32_t hash = 0;
  for (uint32_t i = 0; i < operations; i++) {
    uint32_t word;
    if (pread(file, &word, 4, (off_t)i << 12) != 4) exit(1);
    hash = mix(hash, word);
  }
  close(file);
  return (struct outcome){end - start, mix(hash, operations)};
}

/* Two calls through pointers. */
struct notifier {
  void (*start)(uint32_t *heard, uint32_t page, uint32_t pages);
  void (*end)(uint32_t *heard, uint32_t page, uint32_t pages);
};
static void notifier_start(uint32_t *heard, uint32_t page, uint32_t pages) {
  (void)pages;
  *heard = mix(*heard, page);
}
static void notifier_end(uint32_t *heard, uint32_t page, uint32_t pages) {
  (void)page;
  *heard = mix(*heard, pages);
}
static struct notifier *volatile subscriber = &(struct notifier){notifier_start, notifier_end};

static struct outcome host_notifier(uint32_t operations) {
  uint32_t heard = 0;
  uint64_t start = now();
  for (uint32_t i = 0; i < operations; i++) {
    subscriber->start(&heard, 0x40000 + (i & 1023), 1);
    subscriber->end(&heard, 0x40000 + (i & 1023), 1);
  }
  return (struct outcome){now() - start, heard};
}
