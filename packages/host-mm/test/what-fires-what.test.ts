import { Agent, runToEnd, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, type Memfd } from '../src/index.ts';
import { Recorder } from './recorder.ts';

const cpu = new Agent('cpu');
const ALL = 2 ** 45;
/** Where the mapping begins, in pages: 2M-aligned, not at 0. */
const AT = 1024;

interface Setting {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly memfd: Memfd;
}

interface Row {
  readonly does: string;
  readonly backing?: Backing;
  /** Pages of the mapping; 2048 if left out. */
  readonly pages?: number;
  /** Pages from its start that are present; all if left out. */
  readonly present?: number;
  /** Maps a memfd, shared or private. */
  readonly file?: 'shared' | 'private';
  readonly readOnly?: boolean;
  /** What happens first, unheard. */
  readonly before?: (setting: Setting) => Task<unknown>;
  readonly action: (setting: Setting) => Task<unknown>;
  readonly fires: readonly string[];
}

function* write(mm: AddressSpace, page: number, tagLo = 1): Task<void> {
  yield* mm.cpuAccess(cpu, page, { write: true, tagLo, tagHi: 0 });
}

function* read(mm: AddressSpace, page: number): Task<void> {
  yield* mm.cpuAccess(cpu, page, { write: false, tagLo: 0, tagHi: 0 });
}

/** 16 single CLEARs, and the like. */
const each = (event: string, from: number, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${event} ${from + i}+1`);

const readWrite = { readable: true, writeable: true };
const readOnly = { readable: true, writeable: false };
const none = { readable: false, writeable: false };

const rows: readonly Row[] = [
  {
    does: 'munmap of part of a mapping, a leaf across its end split within the range',
    backing: 'thp-2M',
    action: ({ mm }) => mm.munmap(cpu, AT, 600),
    fires: [`UNMAP ${AT}+600`, `CLEAR ${AT + 512}+512`],
  },
  {
    does: 'munmap of two mappings: one range each',
    action: function* ({ mm }) {
      mm.mmap({ startPage: AT + 2048, pages: 16, backing: '4K' });
      yield* mm.munmap(cpu, AT + 2040, 16);
    },
    fires: [`UNMAP ${AT + 2040}+8`, `UNMAP ${AT + 2048}+8`],
  },
  {
    does: 'mremap',
    action: ({ mm }) => mm.mremap(cpu, AT, 8192),
    fires: [`UNMAP ${AT}+2048`],
  },
  {
    does: 'MADV_DONTNEED',
    action: ({ mm }) => mm.madvise(cpu, AT + 3, 40, 'DONTNEED'),
    fires: [`CLEAR ${AT + 3}+40`],
  },
  {
    does: 'MADV_DONTNEED where nothing is',
    present: 0,
    action: ({ mm }) => mm.madvise(cpu, AT + 3, 40, 'DONTNEED'),
    fires: [`CLEAR ${AT + 3}+40`],
  },
  {
    does: 'MADV_FREE',
    action: ({ mm }) => mm.madvise(cpu, AT + 3, 40, 'FREE'),
    fires: [`CLEAR ${AT + 3}+40`],
  },
  {
    does: 'MADV_PAGEOUT: each folio',
    action: ({ mm }) => mm.madvise(cpu, AT, 3, 'PAGEOUT'),
    fires: each('CLEAR', AT, 3),
  },
  {
    does: 'MADV_PAGEOUT of a 2M folio: one range',
    backing: 'thp-2M',
    action: ({ mm }) => mm.madvise(cpu, AT, 512, 'PAGEOUT'),
    fires: [`CLEAR ${AT}+512`],
  },
  {
    does: 'MADV_PAGEOUT of a page of a 2M folio: the split, then the page',
    backing: 'thp-2M',
    action: ({ mm }) => mm.madvise(cpu, AT + 7, 1, 'PAGEOUT'),
    fires: [`CLEAR ${AT}+512`, `CLEAR ${AT + 7}+1`],
  },
  {
    does: 'MADV_COLD',
    action: ({ mm }) => mm.madvise(cpu, AT, 2048, 'COLD'),
    fires: [],
  },
  {
    does: 'MADV_COLD of part of a 2M folio: its split',
    backing: 'thp-2M',
    action: ({ mm }) => mm.madvise(cpu, AT, 3, 'COLD'),
    fires: [`CLEAR ${AT}+512`],
  },
  {
    does: 'MADV_WILLNEED',
    before: ({ mm }) => mm.madvise(cpu, AT, 8, 'PAGEOUT'),
    action: ({ mm }) => mm.madvise(cpu, AT, 8, 'WILLNEED'),
    fires: [],
  },
  {
    does: 'a fault on a page that was never touched',
    present: 0,
    action: function* ({ mm }) {
      yield* read(mm, AT);
      yield* write(mm, AT + 1);
    },
    fires: [],
  },
  {
    does: 'swap-in, by reading and by writing',
    before: ({ mm }) => mm.madvise(cpu, AT, 8, 'PAGEOUT'),
    action: function* ({ mm }) {
      yield* read(mm, AT);
      yield* write(mm, AT + 5);
    },
    fires: [],
  },
  {
    does: 'setting young, and dirty',
    action: function* ({ mm }) {
      mm.markYoung(AT);
      mm.markDirty(AT, 8);
      yield* write(mm, AT);
    },
    fires: [],
  },
  {
    does: 'reclaim of 4K pages: one range each',
    present: 2,
    action: ({ host }) => host.reclaim(cpu, 2),
    fires: each('CLEAR', AT, 2),
  },
  {
    does: 'reclaim of a 2M folio: one range, in which its leaf is split too',
    backing: 'thp-2M',
    present: 512,
    action: ({ host }) => host.reclaim(cpu, 512),
    fires: [`CLEAR ${AT}+512`],
  },
  {
    does: 'mprotect: the whole part, from the start of the mapping on',
    present: 8,
    action: ({ mm }) => mm.mprotect(cpu, AT, 1000, readOnly),
    fires: [`PROTECTION_VMA ${AT}+1000`],
  },
  {
    does: 'mprotect where nothing is present',
    present: 8,
    action: ({ mm }) => mm.mprotect(cpu, AT + 2 ** 18, 1000, readOnly),
    pages: 2 ** 19,
    fires: [],
  },
  {
    does: 'mprotect of what is in the next 1G only: from there on',
    present: 8,
    pages: 2 ** 19,
    before: ({ mm }) => mm.populate(cpu, 2 ** 18 + 5, 1),
    action: ({ mm }) => mm.mprotect(cpu, AT + 100_000, 300_000, readOnly),
    fires: [`PROTECTION_VMA ${2 ** 18}+${AT + 400_000 - 2 ** 18}`],
  },
  {
    does: 'mprotect to the same rights',
    action: ({ mm }) => mm.mprotect(cpu, AT, 1000, readWrite),
    fires: [],
  },
  {
    does: 'mprotect across two mappings: one range each',
    before: ({ mm }) => mm.mprotect(cpu, AT + 100, 100, none),
    action: ({ mm }) => mm.mprotect(cpu, AT + 50, 100, readOnly),
    fires: [`PROTECTION_VMA ${AT + 50}+50`, `PROTECTION_VMA ${AT + 100}+50`],
  },
  {
    does: 'mprotect within 2M leaves: the leaves across its ends are split first',
    backing: 'thp-2M',
    action: ({ mm }) => mm.mprotect(cpu, AT + 100, 1000, readOnly),
    fires: [`CLEAR ${AT}+512`, `CLEAR ${AT + 1024}+512`, `PROTECTION_VMA ${AT + 100}+1000`],
  },
  {
    does: 'mprotect of hugetlb, present or not',
    backing: 'hugetlb-2M',
    present: 0,
    action: ({ mm }) => mm.mprotect(cpu, AT + 512, 512, readOnly),
    fires: [`PROTECTION_VMA ${AT + 512}+512`],
  },
  {
    does: 'fork: the whole mapping',
    present: 4,
    action: ({ mm }) => mm.fork(cpu, 'child'),
    fires: [`PROTECTION_PAGE ${AT}+2048`],
  },
  {
    does: 'fork of a mapping that was never touched',
    present: 0,
    action: ({ mm }) => mm.fork(cpu, 'child'),
    fires: [],
  },
  {
    does: 'fork of a shared mapping',
    file: 'shared',
    action: ({ mm }) => mm.fork(cpu, 'child'),
    fires: [],
  },
  {
    does: 'fork of hugetlb',
    backing: 'hugetlb-2M',
    action: ({ mm }) => mm.fork(cpu, 'child'),
    fires: [`CLEAR ${AT}+2048`],
  },
  {
    does: 'fork with a pin in a 2M folio: its leaf is split within the range',
    backing: 'thp-2M',
    before: ({ mm }) => mm.pin(cpu, AT + 3, 1),
    action: ({ mm }) => mm.fork(cpu, 'child'),
    fires: [`PROTECTION_PAGE ${AT}+2048`, `CLEAR ${AT}+512`],
  },
  {
    does: 'copy on write of a 4K page',
    before: ({ mm }) => mm.fork(cpu, 'child'),
    action: ({ mm }) => write(mm, AT + 5),
    fires: [`CLEAR ${AT + 5}+1`],
  },
  {
    does: 'copy on write in a 2M leaf: the split, then the page',
    backing: 'thp-2M',
    before: ({ mm }) => mm.fork(cpu, 'child'),
    action: ({ mm }) => write(mm, AT + 5),
    fires: [`CLEAR ${AT}+512`, `CLEAR ${AT + 5}+1`],
  },
  {
    does: 'copy on write of a huge page',
    backing: 'hugetlb-2M',
    before: ({ mm }) => mm.fork(cpu, 'child'),
    action: ({ mm }) => write(mm, AT + 5),
    fires: [`CLEAR ${AT}+512`],
  },
  {
    does: 'a write of the last one who has a page: it is reused',
    before: function* ({ mm }) {
      const child = yield* mm.fork(cpu, 'child');
      yield* child.exit(cpu);
    },
    action: ({ mm }) => write(mm, AT + 5),
    fires: [],
  },
  {
    does: 'KSM: both write-protected, the second replaced',
    before: function* ({ mm }) {
      yield* write(mm, AT);
      yield* write(mm, AT + 9);
    },
    action: ({ host, mm }) => host.ksmMerge(cpu, { mm, page: AT }, { mm, page: AT + 9 }),
    fires: [`CLEAR ${AT}+1`, `CLEAR ${AT + 9}+1`, `CLEAR ${AT + 9}+1`],
  },
  {
    does: 'KSM of pages that differ',
    before: ({ mm }) => write(mm, AT),
    action: ({ host, mm }) => host.ksmMerge(cpu, { mm, page: AT }, { mm, page: AT + 9 }),
    fires: [],
  },
  {
    does: 'a write to a KSM page',
    before: ({ host, mm }) => host.ksmMerge(cpu, { mm, page: AT }, { mm, page: AT + 9 }),
    action: ({ mm }) => write(mm, AT + 9),
    fires: [`CLEAR ${AT + 9}+1`],
  },
  {
    does: 'mremap with KSM pages: they are copied first',
    before: ({ host, mm }) => host.ksmMerge(cpu, { mm, page: AT }, { mm, page: AT + 9 }),
    action: ({ mm }) => mm.mremap(cpu, AT, 8192),
    fires: [`CLEAR ${AT}+1`, `CLEAR ${AT + 9}+1`, `UNMAP ${AT}+2048`],
  },
  {
    does: 'NUMA hinting: the whole range',
    present: 4,
    action: ({ mm }) => mm.changeProtNuma(cpu, AT, 600),
    fires: [`PROTECTION_VMA ${AT}+600`],
  },
  {
    does: 'NUMA hinting of part of a 2M leaf: split within the range',
    backing: 'thp-2M',
    action: ({ mm }) => mm.changeProtNuma(cpu, AT + 1, 8),
    fires: [`PROTECTION_VMA ${AT + 1}+8`, `CLEAR ${AT}+512`],
  },
  {
    does: 'NUMA hinting where nothing is present',
    present: 0,
    action: ({ mm }) => mm.changeProtNuma(cpu, AT, 600),
    fires: [],
  },
  {
    does: 'a NUMA hint fault',
    before: ({ mm }) => mm.changeProtNuma(cpu, AT, 600),
    action: ({ mm }) => write(mm, AT),
    fires: [],
  },
  {
    does: 'clear_refs: the whole address space',
    present: 1,
    action: ({ mm }) => mm.clearSoftDirty(cpu),
    fires: [`SOFT_DIRTY 0+${ALL}`],
  },
  {
    does: 'the write that is soft-dirty again',
    before: ({ mm }) => mm.clearSoftDirty(cpu),
    action: ({ mm }) => write(mm, AT),
    fires: [],
  },
  {
    does: 'userfaultfd: register, copy, zeropage',
    present: 0,
    action: function* ({ mm }) {
      const uffd = mm.userfaultfd();
      yield* uffd.register(cpu, AT, 512);
      yield* uffd.copy(cpu, AT, { tagLo: 1, tagHi: 0 });
      yield* uffd.zeropage(cpu, AT + 1);
    },
    fires: [],
  },
  {
    does: 'userfaultfd write-protect, and lifting it',
    action: function* ({ mm }) {
      const uffd = mm.userfaultfd();
      yield* uffd.register(cpu, AT, 2048, { wp: true });
      yield* uffd.writeProtect(cpu, AT + 8, 16, true);
      yield* uffd.writeProtect(cpu, AT + 8, 16, false);
    },
    fires: [`PROTECTION_VMA ${AT + 8}+16`, `PROTECTION_VMA ${AT + 8}+16`],
  },
  {
    does: 'userfaultfd move of two pages',
    before: function* ({ mm }) {
      mm.mmap({ startPage: 8192, pages: 512, backing: '4K' });
      yield* mm.userfaultfd().register(cpu, 8192, 512);
    },
    action: ({ mm }) => mm.userfaultfd().move(cpu, { fromPage: AT, toPage: 8192, pages: 2 }),
    fires: each('CLEAR', AT, 2),
  },
  {
    does: 'userfaultfd move of a 2M leaf',
    backing: 'thp-2M',
    before: function* ({ mm }) {
      mm.mmap({ startPage: 8192, pages: 512, backing: 'thp-2M' });
      yield* mm.userfaultfd().register(cpu, 8192, 512);
    },
    action: ({ mm }) => mm.userfaultfd().move(cpu, { fromPage: AT, toPage: 8192, pages: 512 }),
    fires: [`CLEAR ${AT}+512`],
  },
  {
    does: 'a hole in a memfd: the part of each mapping',
    file: 'shared',
    before: function* ({ mm, memfd }) {
      mm.mmap({ startPage: 8192, pages: 10, backing: '4K', file: { memfd, offset: 95 } });
      yield* read(mm, AT + 100);
    },
    action: ({ memfd }) => memfd.punchHole(cpu, 100, 50),
    fires: [`CLEAR ${AT + 100}+50`, `CLEAR 8197+5`],
  },
  {
    does: 'truncation of a memfd',
    file: 'shared',
    action: ({ memfd }) => memfd.truncate(cpu, 2000),
    fires: [`CLEAR ${AT + 2000}+48`],
  },
  {
    does: 'a private copy of a file page that is mapped',
    file: 'private',
    action: ({ mm }) => write(mm, AT),
    fires: [`CLEAR ${AT}+1`],
  },
];

function* populated({ mm }: Setting, row: Row): Task<void> {
  const { present = 2048, pages = 2048 } = row;
  const upTo = Math.min(present, pages);
  if (row.file) for (let i = 0; i < upTo; i += 100) yield* read(mm, AT + i);
  else if (upTo > 0) yield* mm.populate(cpu, AT, upTo);
}

describe('what fires what', () => {
  for (const row of rows)
    it(row.does, () => {
      const { backing = '4K', pages = 2048 } = row;
      const host = new HostMemory({ frames: 2 ** 15, swapSlots: 4096, pageCluster: 0 });
      host.setHugePages('2M', 16);
      const mm = host.createAddressSpace('vmm');
      const memfd = host.createMemfd('memfd', pages);
      const file = row.file ? { file: { memfd, offset: 0, private: row.file === 'private' } } : {};
      mm.mmap({ startPage: AT, pages, backing, ...file });
      const setting = { host, mm, memfd };
      runToEnd(populated(setting, row));
      if (row.before) runToEnd(row.before(setting));
      const recorder = new Recorder(mm);
      runToEnd(row.action(setting));
      expect(recorder.take()).toEqual(row.fires);
      expect(host.audit()).toEqual([]);
    });

  it('exit: release, and no range that anybody hears', () => {
    const host = new HostMemory({ frames: 64 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: AT, pages: 16, backing: '4K' });
    runToEnd(mm.populate(cpu, AT, 16));
    const recorder = new Recorder(mm);
    runToEnd(mm.exit(cpu));
    expect(recorder.take()).toEqual([]);
    expect(() => mm.unregisterNotifier(recorder)).toThrow('not registered');
    expect(host.audit()).toEqual([]);
  });
});
