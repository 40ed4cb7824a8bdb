import { HostMemory } from '@faultline/host-mm';
import { Agent, runToEnd, type Task } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import {
  FunctionGroup,
  RemappingUnit,
  VtdDriver,
  VtdFunction,
  type VtdFunctionOptions,
} from '@faultline/vtd-remapping';
import {
  IoasMapFlag,
  type IommuDevice,
  Iommufd,
  IommufdError,
  type IommufdVersion,
  Process,
  type ProcessOptions,
  type Strategy,
} from '../src/index.ts';

/** First page of the process's memory: 2M-aligned, THP. */
export const THP = 0x40000;
/** First page of memory in 4K pages. */
export const SMALL = 0x80000;
/** A page that is only read; the one after it is a hole. */
export const READ_ONLY = 0x90000;

export const RW_FIXED = IoasMapFlag.FIXED_IOVA | IoasMapFlag.WRITEABLE | IoasMapFlag.READABLE;
export const RW = IoasMapFlag.WRITEABLE | IoasMapFlag.READABLE;

/** A process with an open iommufd, and a VT-d unit with functions to bind. */
export class IommufdSetup {
  readonly host = new HostMemory({ frames: 1 << 13, swapSlots: 64 });
  readonly mm = this.host.createAddressSpace('vmm');
  readonly process: Process;
  readonly unit: RemappingUnit;
  readonly driver: VtdDriver;
  readonly fd: Iommufd;
  readonly agent = new Agent('user');

  constructor(
    options: {
      readonly version?: IommufdVersion;
      readonly mode?: 'legacy' | 'scalable';
      readonly strategy?: Strategy | null;
      readonly process?: Partial<ProcessOptions>;
    } = {},
  ) {
    const { version = '7.3', mode = 'legacy', strategy = null } = options;
    this.mm.mmap({ startPage: THP, pages: 2048, backing: 'thp-2M' });
    this.mm.mmap({ startPage: SMALL, pages: 512, backing: '4K' });
    this.mm.mmap({ startPage: READ_ONLY, pages: 1, backing: '4K' });
    runToEnd(this.mm.mprotect(this.agent, READ_ONLY, 1, { readable: true, writeable: false }));
    this.process = new Process({ mm: this.mm, ...options.process });
    const levels = mode === 'legacy' ? ([3, 4] as const) : ([4, 5] as const);
    const guestAddressWidth = mode === 'legacy' ? 48 : 57;
    this.unit = new RemappingUnit({
      memory: new TableMemory({ pages: 512 }),
      capabilities: { levels, guestAddressWidth, scalableMode: mode === 'scalable', deviceTlb: mode === 'scalable' },
    });
    this.driver = new VtdDriver({ unit: this.unit, mode });
    this.fd = new Iommufd({ process: this.process, version, strategy });
  }

  /** A function behind the unit. */
  device(sourceId = 0x28, options: Partial<VtdFunctionOptions> = {}): VtdFunction {
    return new VtdFunction({ driver: this.driver, sourceId, ...options });
  }

  run<T>(task: Task<T>): T {
    return runToEnd(task, () => this.unit.processQueue());
  }

  /** The reply, or the errno's name. */
  call<T>(task: Task<T>): T | string {
    try {
      return this.run(task);
    } catch (error) {
      if (error instanceof IommufdError) return error.code;
      throw error;
    }
  }

  ioas(): number {
    return this.run(this.fd.ioasAlloc(this.agent, { flags: 0 })).outIoasId;
  }

  bind(device: IommuDevice): number {
    return this.run(this.fd.bind(this.agent, device));
  }

  attach(devId: number, ptId: number): number | string {
    return this.call(this.fd.attach(this.agent, devId, ptId));
  }

  /** @returns the IOVA in hex, or the errno */
  map(
    ioasId: number,
    iova: number | bigint,
    pages: number,
    changes: { userPage?: number; flags?: number; length?: bigint; userVa?: bigint } = {},
  ): string {
    const userVa = changes.userVa ?? BigInt(changes.userPage ?? THP) * 4096n;
    const { flags = RW_FIXED, length = BigInt(pages) * 4096n } = changes;
    const reply = this.call(this.fd.ioasMap(this.agent, { flags, ioasId, userVa, length, iova: BigInt(iova) }));
    return typeof reply === 'string' ? reply : reply.iova.toString(16);
  }

  /** @returns bytes in hex, or the errno */
  unmap(ioasId: number, iova: number | bigint, length: number | bigint): string {
    const reply = this.call(this.fd.ioasUnmap(this.agent, { ioasId, iova: BigInt(iova), length: BigInt(length) }));
    return typeof reply === 'string' ? reply : reply.length.toString(16);
  }

  destroy(id: number): string {
    return this.call(this.fd.destroy(this.agent, { id })) ?? 'ok';
  }

  hwpt(
    devId: number,
    ptId: number,
    changes: { flags?: number; dataType?: number; data?: Uint8Array; faultId?: number } = {},
  ): number | string {
    const { flags = 0, dataType = 0, data = new Uint8Array(0), faultId = 0 } = changes;
    const reply = this.call(this.fd.hwptAlloc(this.agent, { flags, devId, ptId, dataType, data, faultId }));
    return typeof reply === 'string' ? reply : reply.outHwptId;
  }

  ranges(ioasId: number): string {
    const reply = this.call(this.fd.ioasIovaRanges(this.agent, { ioasId, numIovas: 8 }));
    if (typeof reply === 'string') return reply;
    const text = reply.allowedIovas.map(({ start, last }) => `[${start.toString(16)}-${last.toString(16)}]`).join(' ');
    return `align=${reply.outIovaAlignment.toString(16)} ${text}`;
  }

  /** Leaves of the domain that a function is attached to, as 4K, 2M, 1G. */
  leaves(device: VtdFunction): number[] {
    const { domain } = device;
    return domain ? Object.values(domain.table.leafCounts) : [];
  }

  /** Closes all and says what is left: objects, pinned bytes, locked pages, table pages beyond the unit's own. */
  leftovers(): { objects: number; pinned: number; locked: number; owner: number } {
    this.run(this.fd.close(this.agent));
    const { process } = this;
    return {
      objects: this.fd.context.table.size,
      pinned: this.mm.accountedPinBytes,
      locked: process.user.lockedPages + process.lockedPages + process.pinnedPages,
      owner: this.fd.context.groups.size,
    };
  }
}

export const NOTHING_LEFT = { objects: 0, pinned: 0, locked: 0, owner: 0 };
export { FunctionGroup };
