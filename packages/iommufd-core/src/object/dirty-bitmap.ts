import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { greater, LAST_IOVA, lesser } from '../ioas/reserved-iovas.ts';
import type { HwptObject } from './hwpt-object.ts';
import { DirtyBitmapFlag } from './ioctl-flags.ts';
import type { HwptGetDirtyBitmapRequest } from './ioctl-request.ts';
import { reported } from './reported.ts';

/**
 * IOMMU_HWPT_GET_DIRTY_BITMAP: ORs a bit into `data` for each page of `pageSize` in the range that a device wrote to. A hole between areas ends
 * the record, and the call succeeds all the same, as in Linux, where the error is dropped.
 * @throws IommufdError EINVAL, EOVERFLOW, EOPNOTSUPP (no dirty tracking), EFAULT (`data` is too short)
 */
export function* getDirtyBitmap(agent: Agent, hwpt: HwptObject, request: HwptGetDirtyBitmapRequest): Task<void> {
  const { iopt } = hwpt.ioas.ioas;
  checkRange(request, iopt.layout.alignment);
  const { dirty } = hwpt.paging;
  if (dirty === null) throw new IommufdError('EOPNOTSUPP', `hwpt_id: ${hwpt.id} was allocated without dirty tracking`);
  const bits = request.length / request.pageSize;
  if (bits > BigInt(request.data.length) * 8n)
    throw new IommufdError('EFAULT', `data: ${request.data.length} bytes have no room for ${bits} bits`);
  const last = request.iova + request.length - 1n;
  const clear = (request.flags & DirtyBitmapFlag.NO_CLEAR) === 0;
  for (let at = request.iova; at <= last; ) {
    const from = at;
    const area = yield* iopt.read(agent, () => iopt.layout.areas.contiguous(from, from)?.[0]);
    if (!area) return;
    const end = lesser(area.last, last);
    const pages = Number((end - at + 1n + 0xfffn) >> 12n);
    const ranges = yield* reported(dirty.readAndClear(agent, Number(at >> 12n), pages, clear));
    for (const range of ranges) record(request, range, last);
    at = end + 1n;
  }
}

/** Sets the bits of what a dirty leaf and the range share. */
function record(
  { iova, pageSize, data }: HwptGetDirtyBitmapRequest,
  leaf: { readonly page: number; readonly pages: number },
  last: bigint,
): void {
  const first = greater(BigInt(leaf.page) * 4096n, iova);
  const end = lesser(BigInt(leaf.page + leaf.pages) * 4096n - 1n, last);
  for (let bit = Number((first - iova) / pageSize); bit <= Number((end - iova) / pageSize); bit++)
    data[bit >> 3] = (data[bit >> 3] as number) | (1 << (bit & 7));
}

function checkRange({ iova, length, pageSize }: HwptGetDirtyBitmapRequest, alignment: bigint): void {
  if (length === 0n) throw new IommufdError('EINVAL', 'length: 0x0 is not positive');
  if (iova + length - 1n > LAST_IOVA) throw new IommufdError('EOVERFLOW', `iova: ${hex(iova)} + ${hex(length)} wraps`);
  if (pageSize === 0n) throw new IommufdError('EINVAL', 'page_size: 0x0 is not positive');
  for (const unit of [alignment, pageSize])
    if (iova % unit !== 0n || (iova + length) % unit !== 0n)
      throw new IommufdError('EINVAL', `iova: ${hex(iova)} + ${hex(length)} is not a multiple of ${hex(unit)}`);
}
