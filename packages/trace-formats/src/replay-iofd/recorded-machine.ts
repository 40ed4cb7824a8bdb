import {
  errnoName,
  FileTable,
  type IoctlArgument,
  type IommuDevice,
  Iommufd,
  IommufdFile,
  ioctlCommand,
  type Process,
  UserPages,
} from '@faultline/iommufd-core';
import { Agent, Cost, type CostProfile, type Task, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, type VtdDomain, VtdDriver, VtdFunction, type VtdPagingDomain } from '@faultline/vtd-remapping';
import { EduDevice } from './edu-device.ts';
import type { IofdRecording } from './iofd-recording.ts';
import { RecordedProcess } from './recorded-process.ts';
import { QEMU_LEGACY_UNIT, recordedCapabilities, reportedWords } from './recorded-unit.ts';

/** What the kernel's tracer would have written of the model. */
export type ModelEvent =
  | { readonly kind: 'map'; readonly iova: bigint; readonly paddr: bigint; readonly size: bigint }
  | { readonly kind: 'unmap'; readonly iova: bigint; readonly size: bigint; readonly unmappedSize: bigint }
  | { readonly kind: 'attach' };

const TABLE_PAGES = 1 << 12;
/** 00:05.0. */
const EDU_SOURCE_ID = 0x28;
/** A write to swap takes so long that what is called next finds the page in the swap cache, as in the recordings. */
const SWAP_WRITE_NS = 10_000_000;

/** Only the order of things counts here; one nanosecond says that time goes on. */
const PROFILE = Object.fromEntries(
  Object.keys(Cost).map((name) => [
    name,
    { ns: name === 'free' ? 0 : name === 'swapWrite' ? SWAP_WRITE_NS : 1, source: 'replay: for order only' },
  ]),
) as Record<keyof typeof Cost, CostProfile[keyof CostProfile]>;

const bytesOf = (pages: number): bigint => BigInt(pages) << 12n;

/** The recorded machine, on the model: a process, its open /dev/iommu, and an `edu` device behind a VT-d unit in legacy mode. */
export class RecordedMachine {
  readonly process: RecordedProcess;
  readonly iommufd: Iommufd;
  readonly file: IommufdFile;
  /** Where addresses in the structs lead. */
  readonly userMemory = new UserPages();
  readonly device: IommuDevice;
  readonly edu: EduDevice;
  /** Since the last {@link takeEvents}. */
  #events: ModelEvent[] = [];
  readonly #function: VtdFunction;
  readonly #time = new VirtualTime(PROFILE);
  readonly #agent = new Agent('recording program');

  constructor(recording: IofdRecording) {
    this.process = new RecordedProcess(recording.steps);
    const { host } = this.process;
    const registers = recording.registers ?? QEMU_LEGACY_UNIT;
    const capabilities = recordedCapabilities(registers);
    const memory = new TableMemory({ pages: TABLE_PAGES, coherent: capabilities.coherent });
    const unit = new RemappingUnit({ memory, capabilities });
    const driver = new VtdDriver({ unit, mode: 'legacy' });
    const sourceId = EDU_SOURCE_ID;
    this.#function = new VtdFunction({
      driver,
      sourceId,
      registers: reportedWords(capabilities, registers),
      domain: { writeImpliesRead: recording.kernel === '6.12' },
    });
    this.edu = new EduDevice({ unit, host, sourceId });
    this.device = this.#watched(this.#function);
    this.iommufd = new Iommufd({ process: this.process.root, version: recording.kernel });
    this.file = new IommufdFile(this.iommufd, new FileTable());
    this.#openDescriptors(recording);
    const hardware = new Agent('unit');
    this.#time.spawn(hardware, unit.run(hardware), { daemon: true });
    for (const area of host.swap.areas) {
      const disk = new Agent('swap device');
      this.#time.spawn(disk, host.swapIo.worker(disk, area), { daemon: true });
    }
  }

  /** The domain that the device is attached to. */
  get domain(): VtdDomain | null {
    return this.#function.domain;
  }

  /** What happened in domains since it was last asked. */
  takeEvents(): ModelEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /** Runs a task to its end, the hardware with it. What it throws comes out. */
  run<T>(task: (agent: Agent) => Task<T>): T {
    const agent = this.#agent;
    const time = this.#time;
    const ended = { error: null as unknown, value: undefined as T | undefined };
    const guarded = function* (): Task<void> {
      try {
        ended.value = yield* task(agent);
      } catch (error) {
        ended.error = error;
      }
      time.stop(); // a write to swap may still be under way
    };
    time.spawn(agent, guarded());
    time.run();
    if (ended.error !== null) throw ended.error;
    return ended.value as T;
  }

  /** A system call on /dev/iommu. @returns `0` or an errno's name */
  ioctl(nr: number, argument: IoctlArgument, process: Process): string {
    const options = { memory: this.userMemory, process };
    const result = this.run((agent) => this.file.ioctl(agent, ioctlCommand(nr), argument, options));
    return result < 0 ? (errnoName(result) ?? `-${-result}`) : `${result}`;
  }

  #openDescriptors({ open }: IofdRecording): void {
    const last = open ? Math.max(open.iommuFd, open.deviceFd, 2) : 4;
    for (let fd = 0; fd <= Math.min(last, 255); fd++) this.file.files.open({ name: `descriptor ${fd}` });
  }

  /** The function as iommufd sees it, with an eye on what is done to its domains. */
  #watched(vtd: VtdFunction): IommuDevice {
    const note = (event: ModelEvent): void => {
      this.#events.push(event);
    };
    const device: IommuDevice = {
      name: vtd.name,
      group: { devices: [], owner: null },
      unit: vtd.unit,
      reservedRegions: vtd.reservedRegions,
      hwInfo: vtd.hwInfo,
      capabilities: vtd.capabilities,
      allocatePaging: (request) => watchDomain(vtd.allocatePaging(request), note),
      *attach(agent, domain) {
        yield* vtd.attach(agent, domain);
        note({ kind: 'attach' });
      },
      detach: (agent) => vtd.detach(agent),
    };
    return Object.assign(device, { group: { devices: [device], owner: null } });
  }
}

/** Notes each map and unmap of a domain. */
function watchDomain(paging: VtdPagingDomain, note: (event: ModelEvent) => void): VtdPagingDomain {
  const { domain } = paging;
  const map = domain.map.bind(domain);
  const unmap = domain.unmap.bind(domain);
  domain.map = function* (agent, request) {
    const { page, frame, pages, largest } = request;
    const mapped = yield* map(agent, request);
    // HUGE_PAGES=0 is a bound on leaves here, and one iommu_map for each page in Linux, whose tracer sees them all.
    const unit = largest === 1 ? 1 : pages;
    for (let at = 0; at < pages; at += unit)
      note({ kind: 'map', iova: bytesOf(page + at), paddr: bytesOf(frame + at), size: bytesOf(unit) });
    return mapped;
  };
  domain.unmap = function* (agent, request, gather) {
    const { page, pages } = request;
    const unmapped = yield* unmap(agent, request, gather);
    note({ kind: 'unmap', iova: bytesOf(page), size: bytesOf(pages), unmappedSize: bytesOf(unmapped) });
    return unmapped;
  };
  return paging;
}
