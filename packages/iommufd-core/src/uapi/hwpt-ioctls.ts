import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { HwptDataType } from '../object/ioctl-flags.ts';
import type { HwptInvalidateReply } from '../object/ioctl-request.ts';
import { checkReserved, type IoctlCall, type IoctlEntry, ioctlEntry } from './ioctl-call.ts';
import type { StructView } from './struct-layout.ts';
import { UAPI } from './uapi-structs.ts';
import { copyFromUser, copyToUser } from './user-memory.ts';

/** The largest bitmap that is taken in one call: 2 TiB of 4K pages. The kernel works through any, a few pages at a time. */
const LARGEST_BITMAP_BYTES = 1 << 26;
/** The largest driver data of a HWPT_ALLOC: a page, as what the kernel copies of a user's struct is limited. */
const LARGEST_DATA_BYTES = 4096;
/** Of a HWPT_INVALIDATE. */
const LARGEST_ENTRY_BYTES = 4096;
const MOST_ENTRIES = 1 << 19;

type Fields<Name extends keyof typeof UAPI> = keyof (typeof UAPI)[Name]['fields'] & string;

function* hwptAlloc(call: IoctlCall, command: StructView<Fields<'iommu_hwpt_alloc'>>): Task<void> {
  checkReserved(command, '__reserved', '__reserved2');
  const dataType = command.number('data_type');
  const dataBytes = command.number('data_len');
  if ((dataType === HwptDataType.NONE) !== (dataBytes === 0))
    throw new IommufdError('EINVAL', `data_len: 0x${dataBytes.toString(16)} with data_type ${dataType}`);
  const request = {
    flags: command.number('flags'),
    devId: command.number('dev_id'),
    ptId: command.number('pt_id'),
    faultId: command.number('fault_id'),
    dataType,
    get data() {
      return copyFromUser(call.memory, command.bigint('data_uptr'), Math.min(dataBytes, LARGEST_DATA_BYTES));
    },
  };
  const reply = yield* call.iommufd.hwptAlloc(call.agent, request);
  command.set('out_hwpt_id', reply.outHwptId);
  call.respond();
}

function* getHwInfo(call: IoctlCall, command: StructView<Fields<'iommu_hw_info'>>): Task<void> {
  checkReserved(command, '__reserved');
  const request = {
    flags: command.number('flags'),
    devId: command.number('dev_id'),
    inDataType: command.number('in_data_type'),
  };
  const reply = yield* call.iommufd.getHwInfo(call.agent, request);
  const roomBytes = command.number('data_len');
  const address = command.bigint('data_uptr');
  const copied = reply.data.subarray(0, roomBytes);
  if (copied.length > 0) copyToUser(call.memory, address, copied);
  clearUser(call, address + BigInt(copied.length), roomBytes - copied.length);
  command.set('data_len', reply.data.length);
  command.set('out_data_type', reply.outDataType);
  command.set('out_max_pasid_log2', reply.outMaxPasidLog2);
  command.set('out_capabilities', reply.outCapabilities);
  call.respond();
}

/** clear_user, a page at a time: the user says the length, and it may be 4 GiB. @throws IommufdError EFAULT */
function clearUser({ memory }: IoctlCall, address: bigint, bytes: number): void {
  const zeros = new Uint8Array(Math.min(bytes, 4096));
  for (let done = 0; done < bytes; done += zeros.length)
    copyToUser(memory, address + BigInt(done), zeros.subarray(0, bytes - done));
}

function* getDirtyBitmap(call: IoctlCall, command: StructView<Fields<'iommu_hwpt_get_dirty_bitmap'>>): Task<void> {
  checkReserved(command, '__reserved');
  const length = command.bigint('length');
  const pageSize = command.bigint('page_size');
  const address = command.bigint('data');
  let bitmap: Uint8Array | undefined;
  const request = {
    hwptId: command.number('hwpt_id'),
    flags: command.number('flags'),
    iova: command.bigint('iova'),
    length,
    pageSize,
    get data() {
      bitmap ??= readBitmap(call, address, length, pageSize);
      return bitmap;
    },
  };
  yield* call.iommufd.hwptGetDirtyBitmap(call.agent, request);
  if (bitmap !== undefined) copyToUser(call.memory, address, bitmap);
}

function readBitmap({ memory }: IoctlCall, address: bigint, length: bigint, pageSize: bigint): Uint8Array {
  const bits = pageSize === 0n ? 0n : (length + pageSize - 1n) / pageSize;
  const bytes = (bits + 7n) / 8n;
  if (bytes > LARGEST_BITMAP_BYTES)
    throw new IommufdError('ENOMEM', `length: its bitmap has ${bytes} bytes, more than ${LARGEST_BITMAP_BYTES}`);
  return copyFromUser(memory, address, Number(bytes));
}

function* invalidate(call: IoctlCall, command: StructView<Fields<'iommu_hwpt_invalidate'>>): Task<void> {
  checkReserved(command, '__reserved');
  const [entryLen, entryNum] = [command.number('entry_len'), command.number('entry_num')];
  const address = command.bigint('data_uptr');
  const isSane = entryLen > 0 && entryLen <= LARGEST_ENTRY_BYTES && entryNum <= MOST_ENTRIES;
  const data = address !== 0n && isSane ? readEntries(call, { address, entryLen, entryNum }) : null;
  const readable = data === null ? entryNum : data.length / entryLen;
  const request = {
    hwptId: command.number('hwpt_id'),
    dataType: command.number('data_type'),
    entryLen,
    entryNum: readable,
    data: address === 0n ? null : (data ?? new Uint8Array()),
  };
  try {
    const reply = yield* call.iommufd.hwptInvalidate(call.agent, request);
    // A driver copies entry by entry, and has done those before the one that it cannot read.
    if (readable < entryNum) throw new IommufdError('EFAULT', `data_uptr: entry ${readable} is not there`, reply);
    command.set('entry_num', reply.entryNum);
    call.respond();
  } catch (error) {
    const handled = error instanceof IommufdError ? (error.reply as HwptInvalidateReply | undefined) : undefined;
    command.set('entry_num', handled?.entryNum ?? 0);
    call.respond();
    throw error;
  }
}

/** Entries as far as they can be read. */
function readEntries(
  { memory }: IoctlCall,
  { address, entryLen, entryNum }: { address: bigint; entryLen: number; entryNum: number },
): Uint8Array {
  const entry = new Uint8Array(entryLen);
  const entries: Uint8Array[] = [];
  while (entries.length < entryNum && memory.read(address + BigInt(entries.length * entryLen), entry))
    entries.push(entry.slice());
  const data = new Uint8Array(entries.length * entryLen);
  for (const [i, each] of entries.entries()) data.set(each, i * entryLen);
  return data;
}

/** The ioctls on hardware page tables, and what the hardware is. */
export const HWPT_IOCTLS: readonly IoctlEntry[] = [
  ioctlEntry({
    nr: 0x89,
    name: 'HWPT_ALLOC',
    layout: UAPI.iommu_hwpt_alloc,
    last: '__reserved',
    execute: hwptAlloc,
  }),
  ioctlEntry({ nr: 0x8a, name: 'GET_HW_INFO', layout: UAPI.iommu_hw_info, last: '__reserved', execute: getHwInfo }),
  ioctlEntry({
    nr: 0x8b,
    name: 'HWPT_SET_DIRTY_TRACKING',
    layout: UAPI.iommu_hwpt_set_dirty_tracking,
    last: '__reserved',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = { flags: command.number('flags'), hwptId: command.number('hwpt_id') };
      yield* call.iommufd.hwptSetDirtyTracking(call.agent, request);
    },
  }),
  ioctlEntry({
    nr: 0x8c,
    name: 'HWPT_GET_DIRTY_BITMAP',
    layout: UAPI.iommu_hwpt_get_dirty_bitmap,
    last: 'data',
    execute: getDirtyBitmap,
  }),
  ioctlEntry({
    nr: 0x8d,
    name: 'HWPT_INVALIDATE',
    layout: UAPI.iommu_hwpt_invalidate,
    last: '__reserved',
    execute: invalidate,
  }),
];
