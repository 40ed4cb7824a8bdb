import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  errnoName,
  IOCTL_TABLE,
  type IoctlEntry,
  type IommufdVersion,
  ioctlCommand,
  STRATEGIES,
  type Strategy,
  UAPI,
  VfioCommand,
} from '../src/index.ts';
import { RW_FIXED, THP } from './iommufd-setup.ts';
import { ARRAY, NOWHERE, READ_ONLY_ARRAY, struct, UapiSetup } from './uapi-setup.ts';

/** Today's iommufd, or one that takes maps without pins (bit 31 of their flags). */
const strategy = fc.constantFrom(null, STRATEGIES.cut);
const version = fc.constantFrom<IommufdVersion>('6.12', '7.3');

/** A kernel's answer: 0, a count, or minus an errno that has a name. */
function expectAnswer(result: number): void {
  expect(Number.isInteger(result)).toBe(true);
  if (result < 0) expect([result, errnoName(result)]).not.toEqual([result, null]);
}

/** An iommufd in use: a bound device, two IOASes, one attached, with memory mapped, a HWPT of its own and a fault queue. */
function inUse(options: {
  readonly version: IommufdVersion;
  readonly scalable?: boolean;
  readonly strategy?: Strategy | null;
}): UapiSetup {
  const setup = new UapiSetup({
    version: options.version,
    mode: options.scalable ? 'scalable' : 'legacy',
    strategy: options.strategy ?? null,
  });
  const devId = setup.run(setup.fd.bind(setup.agent, setup.device()));
  const [one] = [setup.newIoas(), setup.newIoas()];
  const map = { flags: RW_FIXED, ioas_id: one, user_va: BigInt(THP) << 12n, length: 0x20_0000n, iova: 0x20_0000n };
  setup.ioctl(0x85, struct(UAPI.iommu_ioas_map, map).bytes);
  setup.run(setup.fd.attach(setup.agent, devId, one));
  const flags = options.scalable ? 2 : 0;
  setup.ioctl(0x89, struct(UAPI.iommu_hwpt_alloc, { dev_id: devId, pt_id: one, flags }).bytes);
  setup.ioctl(0x8e, struct(UAPI.iommu_fault_alloc, {}).bytes);
  setup.ioctl(0x88, struct(UAPI.iommu_vfio_ioas, { ioas_id: one, op: 1 }).bytes);
  return setup;
}

/** Afterwards it still works, and can be closed with nothing left. */
function expectSound(setup: UapiSetup): void {
  const ioas_id = setup.newIoas();
  const place = { ioas_id, user_va: BigInt(THP + 512) << 12n, length: 0x1000n, iova: 0x1000n };
  expect(setup.ioctl(0x85, struct(UAPI.iommu_ioas_map, { flags: RW_FIXED, ...place }).bytes)).toBe('0');
  for (let fd = 0; fd < 8; fd++) setup.files.close(fd);
  setup.run(setup.fd.close(setup.agent));
  expect(setup.mm.pinnedBytes).toBe(0);
  expect(setup.host.audit()).toEqual([]);
}

const edges = [
  0n,
  1n,
  0xfffn,
  0x1000n,
  0x20_0000n,
  0x3f_f000n,
  0xfee0_0000n,
  1n << 48n,
  (1n << 64n) - 0x1000n,
  (1n << 64n) - 1n,
];
const addresses = [ARRAY, READ_ONLY_ARRAY, READ_ONLY_ARRAY - 8n, NOWHERE, BigInt(THP) << 12n];
const wide = fc.oneof(
  fc.constantFrom(...edges, ...addresses),
  fc.nat(0x1000).map((pages) => BigInt(pages) << 12n),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
);
const narrow = fc.oneof(
  { weight: 6, arbitrary: fc.nat(8) },
  { weight: 1, arbitrary: fc.constantFrom(24, 40, 0x80, 0x8000_0007, 0xffff_ffff) },
);

/** A struct of an ioctl whose fields are small, or at an edge, so that many calls get past the first checks. */
const call = (entry: Pick<IoctlEntry, 'nr' | 'layout'>): fc.Arbitrary<{ nr: number; bytes: Uint8Array }> => {
  const fields = Object.entries(entry.layout.fields).filter(([name]) => !/^(size|argsz|__reserved2?|pad)$/.test(name));
  const values = fields.map(([, { bytes }]) => (bytes === 8 ? wide : narrow));
  return fc.tuple(...(values as fc.Arbitrary<number | bigint>[])).map((chosen) => {
    const view = struct(entry.layout, {});
    for (const [i, [name, { bytes }]] of fields.entries())
      view.set(name, bytes === 8 ? BigInt(chosen[i] as bigint) : Number(chosen[i]));
    return { nr: entry.nr, bytes: view.bytes };
  });
};

describe('whatever the user passes', () => {
  test('any command with any bytes ends with a number or an errno', () => {
    const command = fc.oneof(
      fc.nat(0xff).map(ioctlCommand),
      fc.constantFrom(...IOCTL_TABLE.map(({ nr }) => ioctlCommand(nr)), ...Object.values(VfioCommand)),
      fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    );
    const bytes = fc.tuple(fc.uint8Array({ maxLength: 96 }), fc.option(fc.nat(100))).map(([given, size]) => {
      if (size !== null && given.length >= 4) new DataView(given.buffer).setUint32(0, size, true);
      return given;
    });
    const argument = fc.oneof(bytes, fc.nat(0xffff_ffff));
    fc.assert(
      fc.property(version, fc.array(fc.tuple(command, argument), { maxLength: 40 }), (which, calls) => {
        const setup = inUse({ version: which });
        for (const [each, given] of calls) expectAnswer(setup.raw(each, given));
        expectSound(setup);
      }),
      { numRuns: 40 },
    );
  });

  test('well-formed structs with odd values, in any order', () => {
    const vfio = [
      { nr: VfioCommand.GET_INFO & 0xff, layout: UAPI.vfio_iommu_type1_info },
      { nr: VfioCommand.MAP_DMA & 0xff, layout: UAPI.vfio_iommu_type1_dma_map },
      { nr: VfioCommand.UNMAP_DMA & 0xff, layout: UAPI.vfio_iommu_type1_dma_unmap },
    ] as unknown as readonly Pick<IoctlEntry, 'nr' | 'layout'>[];
    const calls = fc.array(fc.oneof(...[...IOCTL_TABLE, ...vfio].map(call)), { maxLength: 60 });
    const seen = new Set<string>();
    fc.assert(
      fc.property(version, fc.boolean(), strategy, calls, (which, scalable, strategy, list) => {
        const setup = inUse({ version: which, scalable, strategy });
        for (const { nr, bytes } of list) {
          const result = setup.raw(ioctlCommand(nr), bytes);
          expectAnswer(result);
          seen.add(errnoName(result) ?? 'done');
        }
        expectSound(setup);
      }),
      { numRuns: 600 },
    );
    // It reaches behind the first checks.
    for (const errno of ['done', 'ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EOVERFLOW', 'EFAULT', 'EBUSY'])
      expect(seen).toContain(errno);
  });

  test('any reads, writes and closes of descriptors', () => {
    const action = fc.tuple(
      fc.constantFrom('read', 'write', 'close', 'poll'),
      fc.integer({ min: -1, max: 9 }),
      fc.nat(130),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 30 }), (actions) => {
        const setup = inUse({ version: '7.3' });
        const { files, agent } = setup;
        for (const [what, fd, size] of actions)
          if (what === 'read') expectAnswer(setup.run(files.read(agent, fd, new Uint8Array(size))));
          else if (what === 'write') expectAnswer(setup.run(files.write(agent, fd, new Uint8Array(size).fill(size))));
          else expectAnswer(what === 'close' ? files.close(fd) : files.poll(fd));
        expectSound(setup);
      }),
      { numRuns: 40 },
    );
  });
});
