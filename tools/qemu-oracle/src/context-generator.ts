import { invalidateAll, invalidateContext } from './invalidation-generator.ts';
import { CONTEXT_TABLE, contextHigh, type ProgramDomain, type ProgramWorld, ROOT_TABLE } from './program-world.ts';
import { SOURCE_IDS } from './qemu-subject.ts';

const FPD = 2n;
const PASS_THROUGH = 2n << 2n;
const TT_RESERVED = 3n << 2n;

/** Ways to change a context entry: low and high half, from the right ones. */
const CONTEXTS: readonly ((world: ProgramWorld, domain: ProgramDomain) => readonly [lo: bigint, hi: bigint])[] = [
  // Another right one, or the same.
  (_world, domain) => [BigInt(domain.top | 1), contextHigh(domain)],
  // TT=01b: valid only for a unit with device TLBs, which QEMU's has not here.
  (_world, domain) => [BigInt(domain.top | 5), contextHigh(domain)],
  (world, domain) => [BigInt(domain.top | 1), contextHigh({ ...domain, did: world.random.below(0x1_0000) })],
  (_world, domain) => [BigInt(domain.top | 1) | FPD, contextHigh(domain)],
  (_world, domain) => [BigInt(domain.top), contextHigh(domain)],
  (_world, domain) => [BigInt(domain.top) | FPD, contextHigh(domain)],
  (_world, domain) => [BigInt(domain.top | 1) | PASS_THROUGH, contextHigh(domain)],
  (_world, domain) => [BigInt(domain.top | 1) | TT_RESERVED, contextHigh(domain)],
  (_world, domain) => [BigInt(domain.top | 1) | TT_RESERVED | FPD, contextHigh(domain)],
  // AW: reserved values, and one that does not fit the table.
  (world, domain) => [BigInt(domain.top | 1), (contextHigh(domain) & ~7n) | BigInt(world.random.below(8))],
  (world, domain) => [BigInt(domain.top | 1) | (1n << BigInt(4 + world.random.below(8))), contextHigh(domain)],
  (world, domain) => [BigInt(domain.top | 1) | FPD | (1n << BigInt(4 + world.random.below(8))), contextHigh(domain)],
  (world, domain) => [BigInt(domain.top | 1), contextHigh(domain) | (1n << BigInt(24 + world.random.below(40)))],
  (_world, domain) => [BigInt(domain.top | 1), contextHigh(domain) | (1n << 7n)],
  // Bits 6:3 of the high half are software's.
  (world, domain) => [BigInt(domain.top | 1), contextHigh(domain) | (BigInt(world.random.below(16)) << 3n)],
  (world, domain) => [BigInt(world.outside() + 1), contextHigh(domain)],
  (world, domain) => [BigInt(domain.top | 1) | reservedAddressBit(world), contextHigh(domain)],
];

/** One address bit that the unit does not have. */
const reservedAddressBit = (world: ProgramWorld): bigint =>
  1n << BigInt(world.addressBits + world.random.below(64 - world.addressBits));

function invalidateAfter(world: ProgramWorld, sourceId: number): void {
  if (world.random.chance(0.65)) invalidateContext(world, sourceId);
  if (world.random.chance(0.5)) world.invalidate(0x12n, 0n);
}

/** Changes the context entry of a requester, right or wrong, with the invalidations it needs or without. */
export function contextOperation(world: ProgramWorld): void {
  const { random } = world;
  const sourceId = random.pick(SOURCE_IDS);
  const domain = random.pick(world.domains);
  const kind = random.below(CONTEXTS.length);
  const [lo, hi] = (CONTEXTS[kind] as (typeof CONTEXTS)[number])(world, domain);
  if (kind === 0) world.assign(sourceId, domain);
  else world.damaged();
  world.writeContext(sourceId, domain, lo, hi);
  invalidateAfter(world, sourceId);
}

/** Changes the root entry of the bus, or the root table pointer. */
export function rootOperation(world: ProgramWorld): void {
  const { random } = world;
  world.damaged();
  switch (random.below(8)) {
    case 0:
      world.write(ROOT_TABLE, BigInt(CONTEXT_TABLE));
      break;
    case 1:
      world.write(ROOT_TABLE, BigInt(CONTEXT_TABLE | 1) | (1n << BigInt(1 + random.below(11))));
      break;
    case 2:
      world.write(ROOT_TABLE + 8, 1n << BigInt(random.below(64)));
      break;
    case 3:
      world.write(ROOT_TABLE, BigInt(world.outside() + 1));
      break;
    case 4:
      world.write(ROOT_TABLE, BigInt(world.roots.secondContexts | 1));
      break;
    case 5:
      world.setRoot(world.roots.second);
      break;
    case 6:
      world.setRoot(world.outside());
      break;
    default:
      world.write(ROOT_TABLE, BigInt(CONTEXT_TABLE | 1) | reservedAddressBit(world));
  }
  if (random.chance(0.7)) invalidateAll(world);
  else invalidateAfter(world, random.pick(SOURCE_IDS));
}
