const ONE_SET = { sets: 1, ways: 4 } as const;

/** An IOTLB or device TLB of a small world: room for two translations of each size. */
export const SMALL_CACHE = {
  '4K': { sets: 1, ways: 2 },
  '2M': { sets: 1, ways: 2 },
  '1G': { sets: 1, ways: 2 },
} as const;

/** The paging-structure caches of a small world. */
export const SMALL_STRUCTURE_CACHE = { pde: ONE_SET, pdpe: ONE_SET, pml4e: ONE_SET, pml5e: ONE_SET } as const;
