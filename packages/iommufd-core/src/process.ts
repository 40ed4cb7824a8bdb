import type { HostAddressSpace } from './host-address-space.ts';

/** Linux's capabilities that iommufd asks for. */
export type ProcessCapability = 'CAP_IPC_LOCK' | 'CAP_SYS_RESOURCE' | 'CAP_SYS_RAWIO';

/** What all processes of one user have locked (user_struct.locked_vm). */
export interface LockedMemory {
  lockedPages: number;
}

/** Options of a {@link Process}. */
export interface ProcessOptions {
  readonly mm: HostAddressSpace;
  /** Shared by the processes of one user; default: a user of its own. */
  readonly user?: LockedMemory;
  /** RLIMIT_MEMLOCK in bytes; default unlimited. */
  readonly memlockBytes?: bigint;
  readonly capabilities?: readonly ProcessCapability[];
}

/** A process as iommufd sees it: whose memory a map means, and who pays for pins. */
export class Process {
  readonly mm: HostAddressSpace;
  readonly user: LockedMemory;
  readonly memlockBytes: bigint;
  readonly capabilities: ReadonlySet<ProcessCapability>;
  /** Pages locked on behalf of the mm (mm.locked_vm), which the accounting mode MM counts. */
  lockedPages = 0;
  /** Pages pinned on behalf of the mm (mm.pinned_vm), in every mode. */
  pinnedPages = 0;

  constructor(options: ProcessOptions) {
    this.mm = options.mm;
    this.user = options.user ?? { lockedPages: 0 };
    this.memlockBytes = options.memlockBytes ?? (1n << 64n) - 1n;
    this.capabilities = new Set(options.capabilities ?? []);
  }
}
