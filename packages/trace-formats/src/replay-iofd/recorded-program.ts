import { parseSize } from '@faultline/address';
import { HwptAllocFlag, HwptDataType, IommuOption, type Process, StructView, UAPI } from '@faultline/iommufd-core';
import type { Agent, Task } from '@faultline/sim';
import type { IofdCall, IofdObservation, IofdRange } from '../iofd-log.ts';
import { type CallOutcome, hexText, rangesText, resultOnly } from './call-outcome.ts';
import { EDU_IDENT } from './edu-device.ts';
import type { RecordedStep } from './iofd-recording.ts';
import { MemoryCalls } from './memory-calls.ts';
import type { RecordedMachine } from './recorded-machine.ts';
import { RecordedObjects } from './recorded-objects.ts';

const NR = {
  DESTROY: 0x80,
  IOAS_ALLOC: 0x81,
  ALLOW_IOVAS: 0x82,
  IOVA_RANGES: 0x84,
  OPTION: 0x87,
  HWPT_ALLOC: 0x89,
  GET_HW_INFO: 0x8a,
  FAULT_QUEUE_ALLOC: 0x8e,
} as const;
/** Where arrays and data are that a struct points to. */
const SCRATCH = 0x1000_0000n;
const SCRATCH_BYTES = 1 << 16;
/** Room in the array of an IOVA_RANGES. */
const MOST_RANGES = 16;
/** `ALLOW_IOVAS over MSI window`: the program does not print its range. */
const OVER_MSI_WINDOW: IofdRange = { start: 0xfe00_0000n, last: 0xffff_ffffn };
/** What the program has its device copy. */
const EDU_PATTERN = 0x1122_3344_5566_7788n;
const OTHER_PATTERN = 0x99aa_bbcc_ddee_ff00n;
const DEFAULT_MEMLOCK = 8n << 20n;

const low = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** The recording program: each line of its log is a call that is made again. */
export class RecordedProgram {
  readonly memory: MemoryCalls;
  readonly #machine: RecordedMachine;
  readonly #objects = new RecordedObjects();
  #user: { readonly section: string; readonly process: Process } | null = null;
  /** IOVA and page of what the program calls the DMA's source; the page behind it is its destination. */
  #dma = { iova: 0n, page: 0 };
  /** The fault queue allocated last; 0 before. */
  #faultId = 0;

  constructor(machine: RecordedMachine) {
    this.#machine = machine;
    this.memory = new MemoryCalls(machine, this.#objects);
    machine.userMemory.map(SCRATCH, SCRATCH_BYTES);
  }

  /** Makes a call. @returns what came of it, or null if it is not known what the line says */
  perform(step: RecordedStep): CallOutcome | null {
    const { call } = step;
    if (call.kind === 'observation') return this.#observe(call);
    const process = this.#caller(step);
    const [first = '', second = ''] = call.text.split(' ');
    switch (first) {
      case 'VFIO':
        return this.#vfio(second, call);
      case 'MAP':
        return this.#map(call, process);
      case 'UNMAP':
        return this.memory.unmap(call, process);
      case 'COPY':
        return this.memory.copy(call, process);
      case 'MADV_PAGEOUT':
      case 'MADV_DONTNEED':
      case 'MADV_COLLAPSE':
      case 'munmap':
        return this.memory.advise(call);
      default:
        return this.#ioctl(first, call, process);
    }
  }

  /** Whether the program can read the kernel's tracer: as a user it cannot. */
  seesEvents(step: RecordedStep): boolean {
    return this.#caller(step) === this.#machine.process.root;
  }

  #ioctl(name: string, call: IofdCall, process: Process): CallOutcome | null {
    switch (name) {
      case 'IOAS_ALLOC':
        return this.#ioasAlloc(call, process);
      case 'IOVA_RANGES':
        return this.#iovaRanges(call, process);
      case 'ALLOW_IOVAS':
        return this.#allowIovas(call, process);
      case 'GET_HW_INFO':
        return this.#getHwInfo(process);
      case 'DESTROY':
        return this.#destroy(call, process);
      case 'OPTION':
        return this.#option(call, process);
      case 'HWPT_ALLOC':
        return this.#hwptAlloc(call, process);
      case 'FAULT_QUEUE_ALLOC':
        return this.#faultQueueAlloc(process);
      case 'unknown':
        return this.#unknownCommand(call, process);
      default:
        return null;
    }
  }

  /** Root, but for the section in which the program is a user with a limit on locked memory. */
  #caller({ section, call }: RecordedStep): Process {
    const machine = this.#machine;
    if (!/\bmemlock as uid [1-9]/.test(section)) return machine.process.root;
    if (this.#user?.section !== section) {
      const limit = /\b(\d+[KMG]) memlock\b/.exec(call.kind === 'call' ? call.text : '');
      const bytes = limit?.[1] === undefined ? DEFAULT_MEMLOCK : BigInt(parseSize(limit[1]));
      this.#user = { section, process: machine.process.unprivileged(bytes) };
    }
    return this.#user.process;
  }

  #vfio(name: string, { text }: IofdCall): CallOutcome | null {
    const { iommufd, device } = this.#machine;
    const objects = this.#objects;
    switch (name) {
      case 'BIND':
        return this.#typed(
          (agent) => iommufd.bind(agent, device),
          (id) => {
            objects.deviceId = id;
            return { devid: `${id}` };
          },
        );
      case 'ATTACH': {
        const ptId = objects.named(text);
        const out = (id: number): CallOutcome['out'] => ({ pt_id_out: `${id}` });
        // pt_id is in and out: a call that fails leaves it as it is.
        return this.#typed((agent) => iommufd.attach(agent, objects.deviceId, ptId), out, out(ptId));
      }
      case 'DETACH':
        return this.#typed(
          (agent) => iommufd.detach(agent, objects.deviceId),
          () => ({}),
        );
      default:
        return null;
    }
  }

  /** A call of vfio's, on the typed API. @param otherwise the out-fields of a call that fails */
  #typed<T>(
    task: (agent: Agent) => Task<T>,
    out: (value: T) => CallOutcome['out'],
    otherwise: CallOutcome['out'] = {},
  ): CallOutcome {
    try {
      return { result: '0', out: out(this.#machine.run(task)) };
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : '';
      if (!/^E[A-Z0-9]+$/.test(code)) throw error;
      return { result: code, out: otherwise };
    }
  }

  #map(call: IofdCall, process: Process): CallOutcome {
    const outcome = this.memory.map(call, process);
    if (outcome.result === '0' && /\bdma src\b/.test(call.text)) {
      const { 'va%2M': offset = 0n, iova = 0n } = call.arguments;
      const { process: memory } = this.#machine;
      const region = this.#machine.run((agent) => memory.region(agent, call.text));
      this.#dma = { iova, page: region + Number(offset >> 12n) };
    }
    return outcome;
  }

  #ioasAlloc({ text }: IofdCall, process: Process): CallOutcome {
    const command = new StructView(UAPI.iommu_ioas_alloc);
    const { size } = command.layout;
    const flags = /\bflags=(\d+)/.exec(text);
    const given = /\bsize=(\d+)/.exec(text);
    const oversize = /\boversize, nonzero tail\b/.test(text);
    const bytes = new Uint8Array(oversize ? size + 8 : size);
    if (oversize) bytes.fill(0xff, size);
    command.set('size', given ? Number(given[1]) : bytes.length);
    command.set('flags', Number(flags?.[1] ?? 0));
    bytes.set(command.bytes);
    const result = this.#machine.ioctl(NR.IOAS_ALLOC, bytes, process);
    const id = new StructView(UAPI.iommu_ioas_alloc, bytes).number('out_ioas_id');
    if (result === '0') this.#objects.addIoas(id, text);
    return { result, out: { id: `${id}` } };
  }

  #iovaRanges({ text }: IofdCall, process: Process): CallOutcome {
    const command = new StructView(UAPI.iommu_ioas_iova_ranges);
    command.set('size', command.layout.size);
    command.set('ioas_id', this.#objects.namedIoas(text) ?? this.#objects.mainIoas);
    command.set('num_iovas', MOST_RANGES);
    command.set('allowed_iovas', SCRATCH);
    const result = this.#machine.ioctl(NR.IOVA_RANGES, command.bytes, process);
    const count = command.number('num_iovas');
    const ranges: IofdRange[] = [];
    for (let i = 0; i < count && result === '0'; i++) {
      const range = new StructView(UAPI.iommu_iova_range);
      this.#machine.userMemory.read(SCRATCH + BigInt(i * range.layout.size), range.bytes);
      ranges.push({ start: range.bigint('start'), last: range.bigint('last') });
    }
    const out = { num: `${count}`, align: hexText(command.bigint('out_iova_alignment')) };
    return { result, out, ranges: rangesText(ranges) };
  }

  #allowIovas({ text, ranges }: IofdCall, process: Process): CallOutcome | null {
    const printed = /\[([0-9a-f]+)-([0-9a-f]+)\]/.exec(text);
    const range = printed
      ? { start: BigInt(`0x${printed[1]}`), last: BigInt(`0x${printed[2]}`) }
      : /\bover MSI window\b/.test(text)
        ? OVER_MSI_WINDOW
        : ranges[0];
    if (range === undefined) return null;
    const ioasId = this.#objects.namedIoas(text) ?? this.#objects.mainIoas;
    const entry = new StructView(UAPI.iommu_iova_range);
    entry.set('start', range.start);
    entry.set('last', range.last);
    this.#machine.userMemory.write(SCRATCH, entry.bytes);
    const command = new StructView(UAPI.iommu_ioas_allow_iovas);
    command.set('size', command.layout.size);
    command.set('ioas_id', ioasId);
    command.set('num_iovas', 1);
    command.set('allowed_iovas', SCRATCH);
    const result = this.#machine.ioctl(NR.ALLOW_IOVAS, command.bytes, process);
    if (result === '0') this.#objects.allowedIoasId = ioasId;
    return resultOnly(result);
  }

  #getHwInfo(process: Process): CallOutcome {
    const command = new StructView(UAPI.iommu_hw_info);
    const info = new StructView(UAPI.iommu_hw_info_vtd);
    command.set('size', command.layout.size);
    command.set('dev_id', this.#objects.deviceId);
    command.set('data_len', info.layout.size);
    command.set('data_uptr', SCRATCH);
    const result = this.#machine.ioctl(NR.GET_HW_INFO, command.bytes, process);
    this.#machine.userMemory.read(SCRATCH, info.bytes);
    const out = {
      type: `${command.number('out_data_type')}`,
      caps: hexText(command.bigint('out_capabilities')),
      cap: hexText(info.bigint('cap_reg')),
      ecap: hexText(info.bigint('ecap_reg')),
    };
    return { result, out };
  }

  #destroy({ text }: IofdCall, process: Process): CallOutcome {
    const command = new StructView(UAPI.iommu_destroy);
    command.set('size', command.layout.size);
    command.set('id', this.#objects.named(text));
    return resultOnly(this.#machine.ioctl(NR.DESTROY, command.bytes, process));
  }

  #option({ text }: IofdCall, process: Process): CallOutcome | null {
    const [, op, name = '', value] = /^OPTION (GET|SET) ([A-Z_]+)(?:=(\d+))?/.exec(text) ?? [];
    const id = name === 'HUGE_PAGES' || name === 'RLIMIT_MODE' ? IommuOption[name] : undefined;
    if (op === undefined || id === undefined) return null;
    const command = new StructView(UAPI.iommu_option);
    command.set('size', command.layout.size);
    command.set('option_id', id);
    command.set('op', op === 'GET' ? 1 : 0);
    command.set('val64', BigInt(value ?? 0));
    const objects = this.#objects;
    command.set('object_id', name === 'RLIMIT_MODE' ? 0 : (objects.namedIoas(text) ?? objects.mainIoas));
    const result = this.#machine.ioctl(NR.OPTION, command.bytes, process);
    return { result, out: { val: hexText(command.bigint('val64')) } };
  }

  #hwptAlloc({ text }: IofdCall, process: Process): CallOutcome | null {
    const command = new StructView(UAPI.iommu_hwpt_alloc);
    const number = /\b(?:flags=|bad flag )(0x[0-9a-f]+|\d+)/.exec(text);
    const flag = /\b(NEST_PARENT|DIRTY_TRACKING|FAULT_ID_VALID|PASID)\b/.exec(text)?.[1] as
      | keyof typeof HwptAllocFlag
      | undefined;
    const isNested = /\bdata_type VTD_S1\b/.test(text);
    if (!number && !flag && !isNested) return null;
    command.set('size', command.layout.size);
    command.set('flags', number ? Number(number[1]) : flag ? HwptAllocFlag[flag] : 0);
    command.set('dev_id', this.#objects.deviceId);
    command.set('pt_id', this.#objects.namedIoas(text) ?? this.#objects.mainIoas);
    if (flag === 'FAULT_ID_VALID') command.set('fault_id', this.#faultId);
    // The type alone, without data: with data the driver would be asked, and VT-d's says EOPNOTSUPP.
    if (isNested) command.set('data_type', HwptDataType.VTD_S1);
    const result = this.#machine.ioctl(NR.HWPT_ALLOC, command.bytes, process);
    const id = command.number('out_hwpt_id');
    if (result === '0') this.#objects.hwptId = id;
    return { result, out: { out_hwpt: `${id}` } };
  }

  #faultQueueAlloc(process: Process): CallOutcome {
    const command = new StructView(UAPI.iommu_fault_alloc);
    command.set('size', command.layout.size);
    const result = this.#machine.ioctl(NR.FAULT_QUEUE_ALLOC, command.bytes, process);
    this.#faultId = command.number('out_fault_id');
    return { result, out: { id: `${this.#faultId}`, fd: `${command.number('out_fault_fd')}` } };
  }

  #unknownCommand({ text }: IofdCall, process: Process): CallOutcome | null {
    const command = /\b0x([0-9a-f]+)\b/.exec(text);
    if (!command) return null;
    return resultOnly(this.#machine.ioctl(Number.parseInt(command[1] ?? '', 16), new Uint8Array(8), process));
  }

  /** What the device does, and what the program sees of it. */
  #observe({ text }: IofdObservation): CallOutcome | null {
    const value = this.#device(text);
    return value === null ? null : { result: '0', out: { value: hexText(value) } };
  }

  #device(text: string): bigint | null {
    if (text === 'edu ident') return EDU_IDENT;
    const { edu, process } = this.#machine;
    const { iova, page } = this.#dma;
    if (text === 'edu copied') {
      this.#store(page, EDU_PATTERN);
      edu.read(iova);
      edu.write(iova + 0x1000n);
      return this.#content(page + 1);
    }
    if (!/\blanded$/.test(text)) return null;
    this.#store(page, OTHER_PATTERN);
    this.#store(page + 1, 0n);
    // The device reads where it may; what it writes then is what must not arrive.
    edu.read(iova);
    edu.write(iova + 0x1000n);
    return process.mm.lookup(page + 1) >= 0 && this.#content(page + 1) !== 0n ? 1n : 0n;
  }

  #store(page: number, value: bigint): void {
    const { mm } = this.#machine.process;
    const access = { write: true, tagLo: low(value), tagHi: low(value >> 32n) };
    this.#machine.run((agent) => mm.cpuAccess(agent, page, access));
  }

  #content(page: number): bigint {
    const { tagLo, tagHi } = this.#machine.process.mm.cpuRead(page);
    return (BigInt(tagHi >>> 0) << 32n) | BigInt(tagLo >>> 0);
  }
}
