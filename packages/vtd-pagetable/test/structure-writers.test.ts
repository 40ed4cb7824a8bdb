import { describe, expect, it } from 'vitest';
import {
  clearPasidEntry,
  clearPasidPresent,
  clearScalableContext,
  decodePasidDirectoryEntry,
  decodePasidEntry,
  decodeScalableContext,
  decodeScalableRoot,
  encodePasidEntry,
  encodeScalableContext,
  type PasidEntry,
  type ScalableContextEntry,
  TableMemory,
  TranslationType,
  writeContext,
  writePasidEntry,
  writeScalableContext,
} from '../src/index.ts';

const context: ScalableContextEntry = {
  faultProcessingDisabled: false,
  deviceTlbEnable: true,
  pasidEnable: true,
  pageRequestEnable: true,
  pasidDirectorySize: 1,
  pasidDirectoryPfn: 0x102,
  ridPasid: 5,
  ridPrivilege: true,
};
const entry: PasidEntry = {
  faultProcessingDisabled: false,
  addressWidth: 2,
  translationType: 3,
  secondStageAccessedDirty: true,
  secondStagePfn: 0x4567,
  domainId: 7,
  pageWalkSnoop: true,
  pageSnoop: false,
  firstStagePfn: 0x99,
};

/** Table memory that looks, as hardware, after every action of the CPU. */
class WatchedMemory extends TableMemory {
  watch: (() => void) | null = null;
  override store(pfn: number, index: number, word: bigint): void {
    super.store(pfn, index, word);
    this.watch?.();
  }
  override flush(pfn: number, index: number, count?: number): void {
    super.flush(pfn, index, count);
    this.watch?.();
  }
}

/** What hardware reads of an entry, from the top: null where something above is not present. */
function hardwareWords(memory: TableMemory, pfn: number, index: number, count: number): bigint[] {
  return Array.from({ length: count }, (_, word) => memory.hardwareLoad(pfn, index + word));
}
function hardwareContext(memory: TableMemory, rootPfn: number, sourceId: number): bigint[] | null {
  const bus = sourceId >> 8;
  const root = decodeScalableRoot(hardwareWords(memory, rootPfn, bus * 2, 2));
  const pfn = (sourceId & 0x80) !== 0 ? root?.upperContextPfn : root?.lowerContextPfn;
  return pfn === undefined || pfn === null ? null : hardwareWords(memory, pfn, (sourceId & 0x7f) * 4, 4);
}
function hardwarePasid(memory: TableMemory, directoryPfn: number, pasid: number): bigint[] | null {
  const slot = pasid >> 6;
  const directory = decodePasidDirectoryEntry([memory.hardwareLoad(directoryPfn + (slot >> 9), slot & 511)]);
  return directory === null ? null : hardwareWords(memory, directory.pasidTablePfn, (pasid & 63) * 8, 8);
}

describe.each([true, false])('with coherent memory: %s', (coherent) => {
  const setup = () => {
    const memory = new WatchedMemory({ basePfn: 0x100, pages: 80, coherent });
    // A page that was in use before: hardware must not see what it held.
    const used = memory.allocate();
    const rootPfn = memory.allocate();
    const directoryPfn = memory.allocateContiguous(32);
    for (let index = 0; index < 512; index++) memory.store(used, index, ~0n & 0xffff_ffff_ffff_ffffn);
    memory.flush(used, 0, 512);
    memory.free(used);
    return { memory, rootPfn, directoryPfn };
  };

  it('hardware sees a context entry whole or not at all', () => {
    for (const sourceId of [0x0000, 0x007f, 0x0080, 0x12ff, 0xffff]) {
      const { memory, rootPfn } = setup();
      const whole = encodeScalableContext(context);
      let looks = 0;
      memory.watch = () => {
        looks++;
        const words = hardwareContext(memory, rootPfn, sourceId);
        if (words !== null && ((words[0] ?? 0n) & 1n) !== 0n) expect(words).toEqual(whole);
      };
      expect(writeScalableContext(memory, rootPfn, sourceId, context)).toBe(true);
      expect(looks).toBeGreaterThan(8);
      memory.watch = null;
      expect(hardwareContext(memory, rootPfn, sourceId)).toEqual(whole);
      for (const other of [sourceId ^ 1, sourceId ^ 0x80, sourceId ^ 0x100]) {
        const words = hardwareContext(memory, rootPfn, other);
        expect(words === null || decodeScalableContext(words) === null).toBe(true);
      }
      clearScalableContext(memory, rootPfn, sourceId);
      expect(hardwareContext(memory, rootPfn, sourceId)).toEqual([0n, 0n, 0n, 0n]);
    }
  });

  it('hardware sees a PASID entry whole or not at all, up to the last PASID', () => {
    for (const pasid of [0, 63, 64, 0x7fff, 0x8000, 0xfffff]) {
      const { memory, directoryPfn } = setup();
      const whole = encodePasidEntry(entry);
      let looks = 0;
      const look = () => {
        looks++;
        const words = hardwarePasid(memory, directoryPfn, pasid);
        if (words !== null && ((words[0] ?? 0n) & 1n) !== 0n) expect(words).toEqual(whole);
      };
      memory.watch = look;
      expect(writePasidEntry(memory, directoryPfn, pasid, entry)).toBe(true);
      expect(looks).toBeGreaterThan(16);
      expect(hardwarePasid(memory, directoryPfn, pasid)).toEqual(whole);
      clearPasidPresent(memory, directoryPfn, pasid);
      expect(hardwarePasid(memory, directoryPfn, pasid)).toEqual([(whole[0] ?? 0n) & ~1n, ...whole.slice(1)]);
      clearPasidEntry(memory, directoryPfn, pasid);
      expect(hardwarePasid(memory, directoryPfn, pasid)).toEqual(Array.from({ length: 8 }, () => 0n));
    }
  });

  it('clears P first', () => {
    const { memory, rootPfn, directoryPfn } = setup();
    writeScalableContext(memory, rootPfn, 8, context);
    writePasidEntry(memory, directoryPfn, 9, entry);
    const wholeContext = hardwareContext(memory, rootPfn, 8);
    const wholePasid = hardwarePasid(memory, directoryPfn, 9);
    memory.watch = () => {
      for (const [words, whole] of [
        [hardwareContext(memory, rootPfn, 8), wholeContext],
        [hardwarePasid(memory, directoryPfn, 9), wholePasid],
      ])
        if (words && ((words[0] ?? 0n) & 1n) !== 0n) expect(words).toEqual(whole);
    };
    clearScalableContext(memory, rootPfn, 8);
    clearPasidEntry(memory, directoryPfn, 9);
  });

  it('a legacy context entry reaches hardware too', () => {
    const { memory, rootPfn } = setup();
    const legacy = { faultProcessingDisabled: false, tablePfn: 0x120, addressWidth: 2, domainId: 3 };
    writeContext(memory, rootPfn, 0x0310, { ...legacy, translationType: TranslationType.deviceTlb });
    const rootWord = memory.hardwareLoad(rootPfn, 6);
    expect(rootWord & 1n).toBe(1n);
    expect(hardwareWords(memory, Number(rootWord >> 12n), 0x20, 2)).toEqual([0x120005n, 0x302n]);
  });
});

describe('writers', () => {
  it('share a PASID table among 64 PASIDs, and say when there is no page', () => {
    const memory = new TableMemory({ basePfn: 0x100, pages: 3 });
    const directoryPfn = memory.allocate();
    for (const pasid of [0, 1, 63, 64]) expect(writePasidEntry(memory, directoryPfn, pasid, entry)).toBe(true);
    expect(memory.used).toBe(3);
    expect(writePasidEntry(memory, directoryPfn, 128, entry)).toBe(false);
    expect(memory.load(directoryPfn, 2)).toBe(0n);
    expect(decodePasidEntry(hardwarePasid(memory, directoryPfn, 63) ?? [])?.domainId).toBe(7);
  });
  it('refuse what is present, what is no PASID, and what does not fit, and then change nothing', () => {
    const memory = new TableMemory({ basePfn: 0x100, pages: 8 });
    const rootPfn = memory.allocate();
    const directoryPfn = memory.allocate();
    writePasidEntry(memory, directoryPfn, 5, entry);
    writeScalableContext(memory, rootPfn, 5, context);
    expect(() => writePasidEntry(memory, directoryPfn, 5, entry)).toThrow('pasid: 0x5 has an entry already');
    expect(() => writeScalableContext(memory, rootPfn, 5, context)).toThrow(
      'sourceId: 0x5 has a context entry already',
    );
    for (const pasid of [-1, 0x100000, 1.5])
      expect(() => writePasidEntry(memory, directoryPfn, pasid, entry)).toThrow(/^pasid: .* is not in 0\.\.0xfffff$/);
    const before = memory.used;
    expect(() => writePasidEntry(memory, directoryPfn, 500, { ...entry, domainId: 0x10000 })).toThrow('domainId');
    expect(memory.used).toBe(before);
    clearPasidEntry(memory, directoryPfn, 500);
    clearPasidPresent(memory, directoryPfn, 500);
    clearScalableContext(memory, rootPfn, 0x500);
    expect(memory.used).toBe(before);
  });
});
