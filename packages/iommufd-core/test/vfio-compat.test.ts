import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { errnoName, type IoctlArgument, UAPI, VfioCommand, VfioExtension } from '../src/index.ts';
import { THP } from './iommufd-setup.ts';
import { struct, UapiSetup } from './uapi-setup.ts';

const VA = BigInt(THP) << 12n;
const READ_WRITE = 3;

/** An iommufd with a bound device whose attached IOAS is the one of VFIO's calls. */
class VfioSetup extends UapiSetup {
  readonly ioasId = this.newIoas();

  constructor(options: { readonly attached?: boolean; readonly compat?: boolean } = {}) {
    super();
    if (options.compat ?? true) this.ioctl(0x88, struct(UAPI.iommu_vfio_ioas, { ioas_id: this.ioasId, op: 1 }).bytes);
    if (!(options.attached ?? true)) return;
    const devId = this.run(this.fd.bind(this.agent, this.device()));
    this.run(this.fd.attach(this.agent, devId, this.ioasId));
  }

  vfio(command: number, argument: IoctlArgument): string {
    const result = this.raw(command, argument);
    return result < 0 ? (errnoName(result) ?? `${result}`) : `${result}`;
  }

  mapDma(iova: bigint, size: bigint, fields: { flags?: number; argsz?: number } = {}): string {
    const map = { flags: READ_WRITE, vaddr: VA, iova, size, ...fields };
    return this.vfio(VfioCommand.MAP_DMA, struct(UAPI.vfio_iommu_type1_dma_map, map).bytes);
  }

  unmapDma(iova: bigint, size: bigint, fields: { flags?: number; argsz?: number } = {}): [string, bigint] {
    const unmap = struct(UAPI.vfio_iommu_type1_dma_unmap, { iova, size, ...fields });
    return [this.vfio(VfioCommand.UNMAP_DMA, unmap.bytes), unmap.bigint('size')];
  }
}

describe('VFIO type1 on an IOAS', () => {
  test('API version 0; extensions', () => {
    const setup = new VfioSetup();
    expect(setup.vfio(VfioCommand.GET_API_VERSION, 0)).toBe('0');
    const extensions = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((each) => setup.vfio(VfioCommand.CHECK_EXTENSION, each));
    // TYPE1, TYPE1v2 and UNMAP_ALL; not NESTING (6), UPDATE_VADDR (10), nor coherent DMA, since the unit snoops nothing by force.
    expect(extensions).toEqual(['1', '0', '1', '0', '0', '0', '0', '0', '1', '0', '0']);
    const unattached = new VfioSetup({ attached: false });
    expect(unattached.vfio(VfioCommand.CHECK_EXTENSION, VfioExtension.DMA_CC)).toBe('1'); // of no HWPT
  });

  test('without an IOAS that is set for it: ENODEV, after the arguments were checked', () => {
    const setup = new VfioSetup({ compat: false });
    expect(setup.vfio(VfioCommand.CHECK_EXTENSION, VfioExtension.DMA_CC)).toBe('ENODEV');
    expect(setup.vfio(VfioCommand.SET_IOMMU, 2)).toBe('EINVAL');
    expect(setup.vfio(VfioCommand.SET_IOMMU, VfioExtension.TYPE1V2)).toBe('ENODEV');
    expect(setup.mapDma(0n, 0x1000n, { flags: 7 })).toBe('EINVAL');
    expect(setup.mapDma(0n, 0x1000n)).toBe('ENODEV');
    expect(setup.unmapDma(0n, 0x1000n)).toEqual(['ENODEV', 0x1000n]);
    expect(setup.vfio(VfioCommand.GET_INFO, struct(UAPI.vfio_iommu_type1_info, {}).bytes)).toBe('ENODEV');
  });

  test('GET_INFO: page sizes, and a chain of two capabilities if there is room', () => {
    const setup = new VfioSetup();
    const ask = (argsz: number, length = argsz) => {
      const bytes = new Uint8Array(length);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, argsz, true);
      return { result: setup.vfio(VfioCommand.GET_INFO, bytes), view };
    };
    expect(ask(15, 24).result).toBe('EINVAL');
    expect(ask(24, 12).result).toBe('EFAULT');
    const short = ask(24);
    const total = 24 + 16 + (8 + 8 + 2 * 16);
    expect([short.result, short.view.getUint32(0, true), short.view.getUint32(16, true)]).toEqual(['0', total, 0]);
    expect([short.view.getUint32(4, true), short.view.getBigUint64(8, true)]).toEqual([3, 0x1000n]);
    expect(ask(total, total - 1).result).toBe('EFAULT');
    const { result, view } = ask(total);
    expect([result, view.getUint32(0, true), view.getUint32(16, true)]).toEqual(['0', total, 24]);
    // DMA_AVAIL, version 1, the next at 40, no limit; IOVA_RANGE, version 1, the last, two ranges.
    expect([24, 26].map((at) => view.getUint16(at, true))).toEqual([3, 1]);
    expect([28, 32].map((at) => view.getUint32(at, true))).toEqual([40, 0xffff_ffff]);
    expect([40, 42].map((at) => view.getUint16(at, true))).toEqual([1, 1]);
    expect([44, 48].map((at) => view.getUint32(at, true))).toEqual([0, 2]);
    expect([56, 64, 72, 80].map((at) => view.getBigUint64(at, true))).toEqual([
      0n,
      0xfedf_ffffn,
      0xfef0_0000n,
      0xffff_ffff_ffffn,
    ]);
  });

  test('MAP_DMA is fixed, and knows READ and WRITE only', () => {
    const setup = new VfioSetup();
    expect(setup.mapDma(0n, 0x20_0000n)).toBe('0');
    expect(setup.mapDma(0x1000n, 0x1000n)).toBe('EEXIST');
    expect(setup.mapDma(0x40_0000n, 0x1000n, { flags: 4 })).toBe('EINVAL');
    expect(setup.mapDma(0x40_0000n, 0x1000n, { argsz: 31 })).toBe('EINVAL');
    expect(setup.mapDma(0x40_0000n, 0x800n)).toBe('EINVAL');
    expect(setup.vfio(VfioCommand.MAP_DMA, new Uint8Array(31))).toBe('EFAULT');
    expect(setup.vfio(VfioCommand.MAP_DMA, 0)).toBe('EFAULT');
    expect(setup.unit.dma({ sourceId: 0x28, iovaHi: 0, iovaLo: 0x5000, access: 1 })).toBe(setup.mm.lookup(THP + 5));
  });

  test('UNMAP_DMA with v2: whole areas; nothing there is no error', () => {
    const setup = new VfioSetup();
    setup.mapDma(0n, 0x4000n);
    setup.mapDma(0x8000n, 0x4000n);
    expect(setup.unmapDma(0x1000n, 0x1000n)).toEqual(['ENOENT', 0x1000n]);
    expect(setup.unmapDma(0x2_0000n, 0x1000n)).toEqual(['0', 0n]);
    expect(setup.unmapDma(0n, 0n)).toEqual(['EINVAL', 0n]);
    expect(setup.unmapDma((1n << 64n) - 0x1000n, 0x2000n)).toEqual(['EOVERFLOW', 0x2000n]);
    expect(setup.unmapDma(0n, 0x1_0000n)).toEqual(['0', 0x8000n]);
    expect(setup.mm.pinnedBytes).toBe(0);
  });

  test('UNMAP_DMA of all', () => {
    const setup = new VfioSetup();
    setup.mapDma(0n, 0x4000n);
    expect(setup.unmapDma(0n, 0x1000n, { flags: 2 })).toEqual(['EINVAL', 0x1000n]);
    expect(setup.unmapDma(0n, 0n, { flags: 1 })).toEqual(['EINVAL', 0n]); // GET_DIRTY_BITMAP
    expect(setup.unmapDma(0n, 0n, { flags: 2, argsz: 23 })).toEqual(['EINVAL', 0n]);
    expect(setup.unmapDma(0n, 0n, { flags: 2 })).toEqual(['0', 0x4000n]);
    expect(setup.unmapDma(0n, 0n, { flags: 2 })).toEqual(['0', 0n]);
  });

  test('type 1 without v2 cuts areas at both ends, in 4K units; what is left stays mapped and pinned', () => {
    const setup = new VfioSetup();
    expect(setup.vfio(VfioCommand.SET_IOMMU, VfioExtension.TYPE1)).toBe('0');
    setup.mapDma(0n, 0x4000n);
    const reaches = (): number[] =>
      [0, 1, 2, 3].filter((page) => setup.unit.dma({ sourceId: 0x28, iovaHi: 0, iovaLo: page << 12, access: 1 }) > 0);
    expect(setup.unmapDma(0x1000n, 0x1000n)).toEqual(['0', 0x1000n]);
    expect(reaches()).toEqual([0, 2, 3]);
    expect(setup.mm.accountedPinBytes).toBe(0x3000);
    expect(setup.unmapDma(0x2800n, 0x800n)).toEqual(['EINVAL', 0x800n]);
    expect(setup.unmapDma(0x3000n, 0x9000n)).toEqual(['0', 0x1000n]);
    expect(reaches()).toEqual([0, 2]);
    expect(setup.unmapDma(0n, 0x1000n)).toEqual(['0', 0x1000n]);
    expect(setup.unmapDma(0n, 0n, { flags: 2 })).toEqual(['0', 0x1000n]);
    expect([reaches(), setup.mm.accountedPinBytes]).toEqual([[], 0]);
  });

  test('SET_IOMMU type 1 on an IOAS in use is EINVAL, as is a cut with large pages', () => {
    const setup = new VfioSetup();
    setup.mapDma(0n, 0x4000n);
    expect(setup.vfio(VfioCommand.SET_IOMMU, VfioExtension.TYPE1)).toBe('EINVAL');
    expect(setup.vfio(VfioCommand.SET_IOMMU, VfioExtension.TYPE1V2)).toBe('0');
    const { ioas } = setup.fd.context.get(setup.ioasId, 'IOAS');
    expect(() => setup.run(ioas.iopt.cut(setup.agent, [0xfffn]))).toThrow(
      'EINVAL: iova: the area [0x0-0x3fff] cannot be cut at 0x1000',
    );
  });

  test('any maps and unmaps of type 1, attached or not, are those of a set of pages', () => {
    const range = fc.tuple(fc.nat(63), fc.integer({ min: 1, max: 24 }));
    const step = fc.record({ unmap: fc.boolean(), range });
    fc.assert(
      fc.property(fc.boolean(), fc.array(step, { maxLength: 30 }), (attached, steps) => {
        const setup = new VfioSetup({ attached });
        setup.vfio(VfioCommand.SET_IOMMU, VfioExtension.TYPE1);
        const mapped = new Set<number>();
        for (const {
          unmap,
          range: [first, count],
        } of steps) {
          const pages = Array.from({ length: count }, (_, i) => first + i);
          const [iova, size] = [BigInt(first) << 12n, BigInt(count) << 12n];
          const there = pages.filter((page) => mapped.has(page));
          if (unmap) {
            expect(setup.unmapDma(iova, size)).toEqual(['0', BigInt(there.length) << 12n]);
            for (const page of pages) mapped.delete(page);
          } else {
            expect(setup.mapDma(iova, size)).toBe(there.length > 0 ? 'EEXIST' : '0');
            if (there.length === 0) for (const page of pages) mapped.add(page);
          }
          if (attached) expect(setup.mm.accountedPinBytes).toBe(mapped.size * 4096);
        }
        for (let page = 0; page < 90 && attached; page++) {
          const reached = setup.unit.dma({ sourceId: 0x28, iovaHi: 0, iovaLo: page << 12, access: 0 }) > 0;
          expect([page, reached]).toEqual([page, mapped.has(page)]);
        }
        setup.unmapDma(0n, 0n, { flags: 2 });
        expect(setup.mm.accountedPinBytes).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('ENABLE, DISABLE and DIRTY_PAGES are ENOTTY', () => {
    const setup = new VfioSetup();
    for (const command of [0x3b67, 0x3b73, 0x3b74, 0x3b75])
      expect(setup.vfio(command, new Uint8Array(64))).toBe('ENOTTY');
  });
});
