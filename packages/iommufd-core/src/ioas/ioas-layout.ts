import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';
import { checkFaultPolicy, type FaultPolicy } from '../stage2/fault-policy.ts';
import { Area } from './area.ts';
import { formatArea, IoPagetable } from './io-pagetable.ts';
import type { IoptPages } from './iopt-pages.ts';
import { allocateIova } from './iova-allocation.ts';
import { checkAllowed, formatRange, type IovaRange, LAST_IOVA, ReservedIovas } from './reserved-iovas.ts';

/** Where a map goes, and with which rights. */
export interface IoasPlacement {
  /** Null: the lowest IOVA that is free. */
  readonly iova: bigint | null;
  readonly writeable: boolean;
  /** Default true. */
  readonly readable?: boolean;
  /** Of unpinned memory: what is mapped before and around faults; default `DEFAULT_FAULT_POLICY`. */
  readonly policy?: FaultPolicy;
}

/** The addresses that a domain can map. */
export interface DomainGeometry {
  readonly aperture: IovaRange;
  readonly minPageSize: number;
}

/** Part of a linear array of pages, as an area or a copy of one maps it. */
export interface MemoryPart {
  readonly memory: IoptPages;
  readonly startByte: bigint;
  readonly length: bigint;
}

/** Which IOVAs of an IOAS are mapped, reserved and allowed, and how they must be aligned. What changes it holds the `iova_rwsem`. */
export class IoasLayout {
  readonly areas = new IoPagetable();
  readonly reserved = new ReservedIovas();
  /** The list of IOMMU_IOAS_ALLOW_IOVAS; empty allows all. */
  allowed: readonly IovaRange[] = [];
  /** iova_alignment: what domains, accesses and the lack of large pages ask for. */
  alignment = 1n;

  /**
   * Places parts side by side at a fixed or an automatic IOVA, as areas that are being made.
   * @throws IommufdError EINVAL (alignment, reserved), EOVERFLOW, EEXIST, EPERM, ENOSPC
   */
  place(parts: readonly MemoryPart[], to: IoasPlacement): Area[] {
    const length = parts.reduce((sum, part) => sum + part.length, 0n);
    const { alignment } = this;
    if (to.policy) checkFaultPolicy(to.policy);
    if (length > LAST_IOVA) throw new IommufdError('EOVERFLOW', `length: ${hex(length)} is more than all addresses`);
    checkMultiple('length', length, alignment);
    const iova = to.iova ?? this.#automatic(parts[0] as MemoryPart, length);
    if (to.iova !== null) this.#checkFixed(iova, length);
    const areas: Area[] = [];
    let at = iova;
    for (const { memory, startByte, length: bytes } of parts) {
      if (to.writeable && !memory.writeable)
        throw new IommufdError('EPERM', 'flags: WRITEABLE, and the memory was mapped without it');
      checkMultiple('user_va', startByte & 0xfffn, alignment, memory.start + startByte - (memory.start & 0xfffn));
      const readable = to.readable ?? true;
      const rights = { readable, writeable: to.writeable };
      areas.push(new Area({ iova: at, length: bytes, memory, startByte, ...rights, policy: to.policy }));
      at += bytes;
    }
    for (const area of areas) this.areas.insert(area);
    return areas;
  }

  /** Reserves ranges for an owner. @throws IommufdError EADDRINUSE, with none of them reserved */
  reserve(ranges: readonly IovaRange[], owner: object): void {
    for (const range of ranges)
      if (
        this.areas.firstIn(range.start, range.last) ||
        this.allowed.some((a) => a.start <= range.last && range.start <= a.last)
      )
        throw new IommufdError(
          'EADDRINUSE',
          `reserved ${formatRange(range)}: an area or an allowed range is in the way`,
        );
    for (const range of ranges) this.reserved.add(range, owner);
  }

  /** Makes room for a domain: reserves for it what it cannot map. @throws IommufdError EINVAL, EADDRINUSE, with nothing changed */
  admit(owner: object, { aperture, minPageSize }: DomainGeometry): void {
    if (minPageSize > 4096)
      throw new IommufdError('EINVAL', `the domain's least page ${hex(minPageSize)} is larger than 0x1000`);
    this.checkAlignment(BigInt(minPageSize));
    const outside: IovaRange[] = [];
    if (aperture.start > 0n) outside.push({ start: 0n, last: aperture.start - 1n });
    if (aperture.last < LAST_IOVA) outside.push({ start: aperture.last + 1n, last: LAST_IOVA });
    this.reserve(outside, owner);
  }

  /** Replaces the allowed ranges. @throws IommufdError EINVAL, EADDRINUSE, with the old ones kept */
  allow(ranges: readonly IovaRange[]): void {
    this.allowed = checkAllowed(ranges, this.reserved);
  }

  /** Whether areas allow an alignment. @throws IommufdError EADDRINUSE naming one that does not */
  checkAlignment(alignment: bigint): void {
    if (alignment <= this.alignment) return;
    for (const area of this.areas.areas())
      if (((area.iova | area.length | area.pageOffset) & (alignment - 1n)) !== 0n)
        throw new IommufdError('EADDRINUSE', `the area ${formatArea(area)} is not aligned to ${hex(alignment)}`);
  }

  #automatic(first: MemoryPart, length: bigint): bigint {
    const address = (first.memory.start & ~0xfffn) + first.startByte;
    return allocateIova(this, { address, length });
  }

  #checkFixed(iova: bigint, length: bigint): void {
    checkMultiple('iova', iova, this.alignment);
    const last = iova + length - 1n;
    if (last > LAST_IOVA) throw new IommufdError('EOVERFLOW', `iova: ${hex(iova)} + ${hex(length)} wraps`);
    const range = { start: iova, last };
    if (this.reserved.intersects(range)) throw new IommufdError('EINVAL', `iova: ${formatRange(range)} is reserved`);
    const other = this.areas.firstIn(iova, last);
    if (other) throw new IommufdError('EEXIST', `iova: ${formatRange(range)} overlaps the area ${formatArea(other)}`);
  }
}

function checkMultiple(name: string, value: bigint, alignment: bigint, shown = value): void {
  if ((value & (alignment - 1n)) !== 0n)
    throw new IommufdError('EINVAL', `${name}: ${hex(shown)} is not a multiple of ${hex(alignment)}`);
}
