import type { HostMemory } from '@faultline/host-mm';
import type { RemappingUnit } from '@faultline/vtd-remapping';

/** What the identification register of QEMU's `edu` device reads. */
export const EDU_IDENT = 0x0100_00edn;

const half = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** QEMU's `edu` device: a buffer, and DMA between it and memory. A page's content is its tag here. */
export class EduDevice {
  readonly sourceId: number;
  readonly #unit: RemappingUnit;
  readonly #host: HostMemory;
  #buffer = 0n;

  constructor(options: { readonly unit: RemappingUnit; readonly host: HostMemory; readonly sourceId: number }) {
    this.#unit = options.unit;
    this.#host = options.host;
    this.sourceId = options.sourceId;
  }

  /** DMA from memory into the buffer. @returns whether it reached memory */
  read(iova: bigint): boolean {
    const pfn = this.#translate(iova, 0);
    if (pfn < 0) return false;
    const { memory } = this.#host;
    this.#buffer = (BigInt(memory.tagHi(pfn)) << 32n) | BigInt(memory.tagLo(pfn) >>> 0);
    return true;
  }

  /** DMA from the buffer into memory. @returns whether it reached memory */
  write(iova: bigint): boolean {
    const pfn = this.#translate(iova, 1);
    if (pfn < 0) return false;
    this.#host.memory.writeTag(pfn, half(this.#buffer), half(this.#buffer >> 32n));
    return true;
  }

  #translate(iova: bigint, access: 0 | 1): number {
    const { sourceId } = this;
    return this.#unit.dma({ sourceId, iovaHi: half(iova >> 32n), iovaLo: half(iova), access });
  }
}
