import { IoasMapFlag, type Process, StructView, UAPI } from '@faultline/iommufd-core';
import type { IofdCall } from '../iofd-log.ts';
import { type CallOutcome, hexText, resultOnly } from './call-outcome.ts';
import type { RecordedMachine } from './recorded-machine.ts';
import type { RecordedObjects } from './recorded-objects.ts';

const NR = { COPY: 0x83, MAP: 0x85, UNMAP: 0x86 } as const;
const PAGES_2M = 512;
/** `va wraps`: the last 2M of all addresses. */
const TOP_2M = (1n << 64n) - (1n << 21n);

/**
 * What the program does not print of its COPYs, by what it says of them. `at` is relative to the area that it calls the copy source. The two that succeed show
 * at the next attach; where the others aim follows from what they are to show.
 */
const COPIES: readonly (readonly [RegExp, (source: Source) => { at: bigint; length: bigint; dst: bigint }])[] = [
  [/\bfirst 2M\b/, () => ({ at: 0n, length: 0x20_0000n, dst: 0x100_0000n })],
  [/\bfrom the middle\b/, () => ({ at: 0x1000n, length: 0x1000n, dst: 0x300_0000n })],
  [/\bunmapped source\b/, ({ length }) => ({ at: length + 0x1000_0000n, length: 0x1000n, dst: 0x500_0000n })],
  [/\bonto existing\b/, () => ({ at: 0n, length: 0x1000n, dst: 0x100_0000n })],
  [/\bpast end\b/, ({ length }) => ({ at: length - 0x1000n, length: 0x2000n, dst: 0x500_0000n })],
];

interface Source {
  readonly iova: bigint;
  readonly length: bigint;
}

/** MAP, UNMAP and COPY, and what the program does with its memory. */
export class MemoryCalls {
  readonly #machine: RecordedMachine;
  readonly #objects: RecordedObjects;
  /** Which IOASes were mapped at an IOVA. */
  readonly #mappedAt = new Map<bigint, Set<number>>();
  #copySource: Source = { iova: 0n, length: 0n };

  constructor(machine: RecordedMachine, objects: RecordedObjects) {
    this.#machine = machine;
    this.#objects = objects;
  }

  /** IOMMU_IOAS_MAP. */
  map(call: IofdCall, process: Process): CallOutcome {
    const { text } = call;
    const { 'va%2M': offset = 0n, len = 0n, iova = 0n, fl = 0n } = call.arguments;
    const machine = this.#machine;
    const wraps = /\bva wraps\b/.test(text);
    const region = wraps ? 0 : machine.run((agent) => machine.process.region(agent, text, offset, len));
    const command = new StructView(UAPI.iommu_ioas_map);
    command.set('size', command.layout.size);
    command.set('flags', Number(fl));
    command.set('ioas_id', this.#ioasOfMap(text));
    command.set('user_va', (wraps ? TOP_2M : BigInt(region) << 12n) + offset);
    command.set('length', len);
    command.set('iova', iova);
    const result = machine.ioctl(NR.MAP, command.bytes, process);
    if (result === '0') this.#noteMap(text, command.number('ioas_id'), { iova: command.bigint('iova'), length: len });
    return { result, out: { iova_out: hexText(command.bigint('iova')) } };
  }

  /** IOMMU_IOAS_UNMAP. */
  unmap(call: IofdCall, process: Process): CallOutcome {
    const { len = 0n, iova = 0n } = call.arguments;
    const command = new StructView(UAPI.iommu_ioas_unmap);
    command.set('size', command.layout.size);
    command.set('ioas_id', this.#objects.namedIoas(call.text) ?? this.#ioasOfUnmap(iova));
    command.set('iova', iova);
    command.set('length', len);
    const result = this.#machine.ioctl(NR.UNMAP, command.bytes, process);
    return { result, out: { length_out: hexText(command.bigint('length')) } };
  }

  /** IOMMU_IOAS_COPY. @returns null if it is not known what is copied */
  copy(call: IofdCall, process: Process): CallOutcome | null {
    const aim = COPIES.find(([pattern]) => pattern.test(call.text))?.[1](this.#copySource);
    if (aim === undefined) return null;
    const objects = this.#objects;
    const command = new StructView(UAPI.iommu_ioas_copy);
    command.set('size', command.layout.size);
    command.set('flags', IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE);
    command.set('src_ioas_id', objects.mainIoas);
    command.set('dst_ioas_id', objects.namedIoas(call.text) ?? objects.newestIoas);
    command.set('src_iova', this.#copySource.iova + aim.at);
    command.set('length', aim.length);
    command.set('dst_iova', aim.dst);
    const result = this.#machine.ioctl(NR.COPY, command.bytes, process);
    return { result, out: { dst: hexText(command.bigint('dst_iova')) } };
  }

  /** madvise or munmap of 2M of the program's memory. @returns null for advice that is not known */
  advise({ text }: IofdCall): CallOutcome | null {
    const machine = this.#machine;
    const { mm, host } = machine.process;
    const page = machine.run((agent) => machine.process.region(agent, text));
    const [name = ''] = text.split(' ');
    if (name === 'munmap') {
      machine.run((agent) => mm.munmap(agent, page, PAGES_2M));
      return resultOnly('0');
    }
    if (name === 'MADV_PAGEOUT') {
      machine.run((agent) => mm.madvise(agent, page, PAGES_2M, 'PAGEOUT'));
      const { present, swapped } = this.pagemap(page);
      // mincore counts the swap cache too: a page whose write has not ended is still in it.
      const cached = host.swapIo.inFlight > 0 ? swapped : 0;
      const resident = `${present}/${PAGES_2M}`;
      return { result: '0', out: { resident, mincore: `${present + cached}/${PAGES_2M}` } };
    }
    if (name === 'MADV_DONTNEED' && /\bfirst 4K\b/.test(text)) {
      machine.run((agent) => mm.madviseDontNeed(agent, page, 1));
      const { tagLo, tagHi } = mm.cpuRead(page);
      return { result: '0', out: { reads: tagLo === 0 && tagHi === 0 ? '0' : 'content' } };
    }
    return name === 'MADV_COLLAPSE' ? resultOnly(this.collapse(page)) : null;
  }

  /** MADV_COLLAPSE, once what goes to swap has got there. @returns `0` or an errno's name */
  collapse(page: number): string {
    const { run, process } = this.#machine;
    const outcome = run.call(this.#machine, function* (agent) {
      while (process.host.swapIo.inFlight > 0) yield* process.host.swapIo.waitForOne(agent);
      return yield* process.mm.collapse(agent, page);
    });
    if (outcome === 'collapsed' || outcome === 'mapped') return '0';
    return outcome === 'no-memory' ? 'ENOMEM' : outcome === 'busy' ? 'EAGAIN' : 'EINVAL';
  }

  /** Pages of 2M that are present, and that are in swap, as /proc/PID/pagemap says. */
  pagemap(page: number): { readonly present: number; readonly swapped: number } {
    const { mm } = this.#machine.process;
    let present = 0;
    let swapped = 0;
    for (let at = page; at < page + PAGES_2M; at++) {
      if (mm.lookup(at) >= 0) present++;
      else if (mm.isSwapped(at)) swapped++;
    }
    return { present, swapped };
  }

  #noteMap(text: string, ioasId: number, range: Source): void {
    if (/\bcopy source\b/.test(text)) this.#copySource = range;
    this.#mappedAt.set(range.iova, (this.#mappedAt.get(range.iova) ?? new Set()).add(ioasId));
  }

  #ioasOfMap(text: string): number {
    const objects = this.#objects;
    const named = objects.namedIoas(text);
    if (named !== null) return named;
    if (/\ballowed\b/.test(text)) return objects.allowedIoasId ?? objects.mainIoas;
    return /\bbefore attach\b/.test(text) ? objects.newestIoas : objects.mainIoas;
  }

  /** The first IOAS, unless only another one was ever mapped there. */
  #ioasOfUnmap(iova: bigint): number {
    const { mainIoas } = this.#objects;
    const mapped = this.#mappedAt.get(iova);
    return mapped === undefined || mapped.has(mainIoas) ? mainIoas : ([...mapped].at(-1) ?? mainIoas);
  }
}
