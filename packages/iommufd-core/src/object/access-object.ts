import { hex } from '@faultline/address';
import { type Agent, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { Area } from '../ioas/area.ts';
import type { AccessUnmap } from '../ioas/iopt.ts';
import { LAST_IOVA } from '../ioas/reserved-iovas.ts';
import type { PageSpan } from '../ioas/run-list.ts';
import type { IoasObject } from './hwpt-object.ts';
import { IommufdObject } from './object-table.ts';
import { reported } from './reported.ts';

/** Who asks for an access: a driver with no IOMMU of its own (a mediated device). */
export interface AccessOps {
  /** Pins pages: areas must be page-aligned, and {@link unmap} gives the pins back. */
  readonly needsPinPages: boolean;
  /** An area is unmapped: give pins of these IOVAs back, by `unpinPages`, before returning or soon after. */
  unmap?(agent: Agent, iova: bigint, length: bigint): Task<void>;
}

/** A pinned page of an access: its frame, in IOVA order. */
export interface AccessPage {
  readonly pfn: number;
}

interface AccessPin {
  readonly area: Area;
  readonly first: bigint;
  readonly last: bigint;
  readonly span: PageSpan;
}

/** An ACCESS object: the kernel itself reads, writes and pins what an IOAS maps. */
export class AccessObject extends IommufdObject implements AccessUnmap {
  readonly type = 'ACCESS';
  readonly #ops: AccessOps;
  #ioas: IoasObject | null = null;
  readonly #pins: AccessPin[] = [];

  constructor(ops: AccessOps) {
    super();
    this.#ops = ops;
    this.users++; // its owner's
  }

  /** The IOAS that it is attached to. */
  get ioas(): IoasObject | null {
    return this.#ioas;
  }

  /** Pins held, one for each area and call. */
  get pins(): number {
    return this.#pins.length;
  }

  /** iommufd_access_attach. @throws IommufdError EINVAL (attached already), EADDRINUSE */
  *attach(agent: Agent, ioas: IoasObject): Task<void> {
    if (this.#ioas) throw new IommufdError('EINVAL', `access ${this.id} is attached already`);
    yield* ioas.ioas.iopt.addAccess(agent, this, this.#ops.needsPinPages ? 4096n : 1n);
    this.#ioas = ioas;
    ioas.users++;
  }

  /** iommufd_access_detach: has its owner give all pins back first. @throws IommufdError EINVAL (not attached) */
  *detach(agent: Agent): Task<void> {
    const ioas = this.#ioas;
    if (!ioas) throw new IommufdError('EINVAL', `access ${this.id} is not attached`);
    this.#ioas = null; // pins nothing any more
    yield* this.unmap(agent, 0n, LAST_IOVA);
    for (const pin of this.#pins.splice(0)) yield* endPin(agent, pin);
    yield* ioas.ioas.iopt.removeAccess(agent, this);
    ioas.users--;
  }

  /**
   * iommufd_access_pin_pages: pins what a range maps, page by page. @param write asks for write
   * @returns the frames @throws IommufdError EINVAL (length 0, not page-aligned, being unmapped), EOVERFLOW, ENOENT (a hole, not attached),
   * EPERM (write of what is only read); errors of the pin
   */
  *pinPages(agent: Agent, iova: bigint, length: bigint, write: boolean): Task<readonly AccessPage[]> {
    if (!this.#ops.needsPinPages || !this.#ops.unmap)
      throw new IommufdError('EINVAL', `access ${this.id} was not made to pin pages`);
    const last = lastOf(iova, length);
    const areas = yield* this.#areas(agent, iova, last, write);
    const pins: AccessPin[] = [];
    const pages: AccessPage[] = [];
    try {
      for (const area of areas) {
        const pin = pinOf(area, iova, last);
        if (((pin.first | (pin.last + 1n)) & 0xfffn) !== 0n)
          throw new IommufdError('EINVAL', `iova: ${hex(iova)} + ${hex(length)} is not page-aligned`);
        if (area.preventsAccess || area.state !== 'mapped')
          throw new IommufdError('EINVAL', `iova: ${hex(area.iova)} is being unmapped`);
        area.accesses++;
        yield* beginPin(agent, pin);
        pins.push(pin);
        for (const run of area.memory.runs(pin.span))
          for (let page = 0; page < run.pages; page++) pages.push({ pfn: run.pfn + page });
      }
    } catch (error) {
      for (const pin of pins) yield* endPin(agent, pin);
      throw error;
    }
    this.#pins.push(...pins);
    return pages;
  }

  /** iommufd_access_unpin_pages of a range that one pin call asked for. */
  *unpinPages(agent: Agent, iova: bigint, length: bigint): Task<void> {
    const last = lastOf(iova, length);
    for (const pin of this.#pins.filter((each) => each.first >= iova && each.last <= last)) {
      this.#pins.splice(this.#pins.indexOf(pin), 1);
      yield* endPin(agent, pin);
    }
  }

  /**
   * iommufd_access_rw: reads or writes what a range of bytes maps, through `copy`, page by page, each pinned meanwhile.
   * @throws IommufdError EINVAL (length 0), EOVERFLOW, ENOENT (a hole, not attached), EBUSY (being unmapped), EPERM (against the area's rights)
   */
  *readWrite(
    agent: Agent,
    range: { readonly iova: bigint; readonly length: bigint; readonly write: boolean },
    copy: (pfn: number, page: number) => void,
  ): Task<void> {
    const last = lastOf(range.iova, range.length);
    let page = 0;
    for (const area of yield* this.#areas(agent, range.iova, last, range.write)) {
      if (area.preventsAccess || area.state !== 'mapped')
        throw new IommufdError('EBUSY', `iova: ${hex(area.iova)} is being unmapped`);
      const pin = pinOf(area, range.iova, last);
      area.accesses++;
      yield* beginPin(agent, pin);
      for (const run of area.memory.runs(pin.span))
        for (let index = 0; index < run.pages; index++) copy(run.pfn + index, page++);
      yield* endPin(agent, pin);
    }
  }

  *unmap(agent: Agent, iova: bigint, length: bigint): Task<void> {
    yield* this.#ops.unmap?.(agent, iova, length) ?? pause(agent);
  }

  *destroy(agent: Agent): Task<void> {
    if (this.#ioas) yield* this.detach(agent);
  }

  *#areas(agent: Agent, first: bigint, last: bigint, write: boolean): Task<readonly Area[]> {
    const ioas = this.#ioas?.ioas;
    if (!ioas) throw new IommufdError('ENOENT', `access ${this.id} is not attached`);
    return yield* ioas.iopt.read(agent, () => {
      const areas = ioas.areas.contiguous(first, last);
      if (areas === null)
        throw new IommufdError('ENOENT', `iova: [${hex(first)}-${hex(last)}] is not mapped without a hole`);
      const refused = areas.find((area) => !(write ? area.writeable : area.readable));
      if (refused) throw new IommufdError('EPERM', `iova: the area at ${hex(refused.iova)} does not allow it`);
      const unpinned = areas.find((area) => area.unpinned);
      if (unpinned)
        throw new IommufdError('EOPNOTSUPP', `iova: the area at ${hex(unpinned.iova)} is unpinned, and accesses pin`);
      return areas;
    });
  }
}

function lastOf(iova: bigint, length: bigint): bigint {
  if (length <= 0n) throw new IommufdError('EINVAL', `length: ${hex(length)} is not positive`);
  if (iova + length - 1n > LAST_IOVA) throw new IommufdError('EOVERFLOW', `iova: ${hex(iova)} + ${hex(length)} wraps`);
  return iova + length - 1n;
}

function pinOf(area: Area, iova: bigint, last: bigint): AccessPin {
  const first = area.iova > iova ? area.iova : iova;
  const end = area.last < last ? area.last : last;
  return { area, first, last: end, span: area.span(first, end) };
}

/** Pins under the pages' mutex. The area counts the access already, so that no unmap takes it in between; not on failure. */
function* beginPin(agent: Agent, { area, span }: AccessPin): Task<void> {
  const { memory } = area;
  yield* memory.mutex.acquire(agent);
  try {
    yield* reported(memory.use(agent, span));
  } catch (error) {
    area.accesses--;
    throw error;
  } finally {
    memory.mutex.release(agent);
  }
}

function* endPin(agent: Agent, { area, span }: AccessPin): Task<void> {
  const { memory } = area;
  yield* memory.mutex.acquire(agent);
  yield* memory.endUse(agent, span);
  memory.mutex.release(agent);
  area.accesses--;
}

function* pause(agent: Agent): Task<void> {
  yield agent.spends('access has no unmap', Cost.free);
}
