import type { ProgramWorld } from './program-world.ts';
import { SOURCE_IDS } from './qemu-subject.ts';

const CONTEXT = 0x1n;
const IOTLB = 0x2n;
const GLOBAL = 0x10n;
const DOMAIN = 0x20n;
const SELECTIVE = 0x30n;
/** DR and DW. */
const DRAIN = 0xc0n;
/** Up to CAP.MAMV. */
const ADDRESS_MASKS = [0, 0, 0, 0, 1, 2, 3, 4, 8, 9, 9, 10, 12, 18] as const;

/** Everything, as after a change of the root. */
export function invalidateAll(world: ProgramWorld): void {
  world.invalidate(CONTEXT | GLOBAL, 0n);
  world.invalidate(IOTLB | GLOBAL | DRAIN, 0n);
}

/** The pages of a mapping in a domain: 2^addressMask pages around `page`. */
export function invalidatePages(world: ProgramWorld, did: number, page: number, addressMask: number): void {
  const { random } = world;
  const leafOnly = random.chance(0.5) ? 0x40n : 0n;
  world.invalidate(IOTLB | SELECTIVE | DRAIN | (BigInt(did) << 16n), BigInt(page) | leafOnly | BigInt(addressMask));
}

/** A domain that there is, or, now and then, one that there is not. */
const someDid = (world: ProgramWorld): number =>
  world.random.chance(0.1) ? world.random.below(0x1_0000) : world.random.pick(world.domains).did;

/** Context cache: all, a domain, or a device with a function mask. */
export function invalidateContext(world: ProgramWorld, sourceId: number): void {
  const { random } = world;
  const dice = random.below(10);
  const did = BigInt(someDid(world)) << 16n;
  if (dice < 2) world.invalidate(CONTEXT | GLOBAL, 0n);
  else if (dice < 4) world.invalidate(CONTEXT | DOMAIN | did, 0n);
  else {
    const functionMask = BigInt(random.chance(0.6) ? 0 : random.below(4));
    world.invalidate(CONTEXT | SELECTIVE | did | (BigInt(sourceId) << 32n) | (functionMask << 48n), 0n);
  }
}

/** One invalidation of any kind, which fits what was changed or does not. */
export function randomInvalidation(world: ProgramWorld): void {
  const { random } = world;
  const dice = random.below(100);
  if (dice < 75) {
    const addressMask = random.pick(ADDRESS_MASKS);
    const page = world.hotPage();
    // An address that is not aligned to its mask is aligned by the hardware.
    const aligned = random.chance(0.7) ? Math.floor(page / (4096 * 2 ** addressMask)) * 4096 * 2 ** addressMask : page;
    invalidatePages(world, someDid(world), aligned, addressMask);
  } else if (dice < 84) world.invalidate(IOTLB | DOMAIN | DRAIN | (BigInt(someDid(world)) << 16n), 0n);
  else if (dice < 88) world.invalidate(IOTLB | GLOBAL | DRAIN, 0n);
  else invalidateContext(world, random.pick(SOURCE_IDS));
}
