import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { IoasMapFlag, IommuOption, IommuOptionOp } from '../object/ioctl-flags.ts';
import type { IoasIovaRangesReply, IovaRange } from '../object/ioctl-request.ts';
import type { IoctlCall } from './ioctl-call.ts';
import { type StructLayout, StructView } from './struct-layout.ts';
import { UAPI } from './uapi-structs.ts';

/** The commands of VFIO's type1 IOMMU: _IO(';', 100 + n). */
export const VfioCommand = {
  GET_API_VERSION: 0x3b64,
  CHECK_EXTENSION: 0x3b65,
  SET_IOMMU: 0x3b66,
  GET_INFO: 0x3b70,
  MAP_DMA: 0x3b71,
  UNMAP_DMA: 0x3b72,
} as const;
/** Extensions that VFIO_CHECK_EXTENSION knows, and the two IOMMU types of VFIO_SET_IOMMU. */
export const VfioExtension = { TYPE1: 1, TYPE1V2: 3, DMA_CC: 4, UNMAP_ALL: 9 } as const;

const API_VERSION = 0;
const MAP_READ = 1;
const MAP_WRITE = 2;
const UNMAP_ALL = 2;
const INFO_PGSIZES = 1;
const INFO_CAPS = 2;
const CAP_IOVA_RANGE = 1;
const CAP_DMA_AVAIL = 3;
const MOST_RANGES = 1 << 16;
const ALL_BYTES = (1n << 64n) - 1n;

/** The argument of an ioctl: the struct that it points to, or the number itself. */
export type IoctlArgument = Uint8Array | number;

/**
 * An ioctl of VFIO's type1 IOMMU on the IOAS that IOMMU_VFIO_IOAS names (iommufd_vfio_ioctl). @returns what the call returns
 * @throws Error with an errno as its `code`: ENOTTY for other commands, ENODEV without such an IOAS
 */
export function* vfioIoctl(call: IoctlCall, command: number, argument: IoctlArgument): Task<number> {
  switch (command) {
    case VfioCommand.GET_API_VERSION:
      return API_VERSION;
    case VfioCommand.CHECK_EXTENSION:
      return yield* checkExtension(call, argument);
    case VfioCommand.SET_IOMMU:
      return yield* setIommu(call, argument);
    case VfioCommand.GET_INFO:
      return yield* getInfo(call, argument);
    case VfioCommand.MAP_DMA:
      return yield* mapDma(call, argument);
    case VfioCommand.UNMAP_DMA:
      return yield* unmapDma(call, argument);
    default:
      throw new IommufdError('ENOTTY', `command 0x${command.toString(16)}`);
  }
}

/** The compatibility IOAS. @throws IommufdError ENODEV */
function* compatIoas({ agent, iommufd, process }: IoctlCall): Task<number> {
  return (yield* iommufd.vfioIoas(agent, { ioasId: 0, op: 0 }, process)).ioasId;
}

function* checkExtension(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const extension = typeof argument === 'number' ? argument : -1;
  const { TYPE1, TYPE1V2, UNMAP_ALL: unmapAll, DMA_CC } = VfioExtension;
  if (extension === DMA_CC) {
    yield* compatIoas(call);
    return 0; // No modelled unit forces snooping (ECAP.SC), so no HWPT is coherent whatever the device does.
  }
  return extension === TYPE1 || extension === TYPE1V2 || extension === unmapAll ? 1 : 0;
}

function* setIommu(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const { TYPE1, TYPE1V2 } = VfioExtension;
  if (argument !== TYPE1 && argument !== TYPE1V2)
    throw new IommufdError('EINVAL', 'VFIO_SET_IOMMU: neither type 1 nor type 1 v2');
  const ioasId = yield* compatIoas(call);
  if (argument === TYPE1) yield* hugePages(call, ioasId, IommuOptionOp.SET);
  return 0;
}

function* hugePages({ agent, iommufd, process }: IoctlCall, objectId: number, op: number): Task<bigint> {
  const request = { optionId: IommuOption.HUGE_PAGES, op, objectId, val64: 0n };
  return (yield* iommufd.option(agent, request, process)).val64;
}

/** The user's struct. @throws IommufdError EFAULT if it is not there, EINVAL if its argsz is too small */
function userStruct<Field extends string>(
  argument: IoctlArgument,
  layout: StructLayout<Field>,
  minSize = layout.size,
): StructView<Field> {
  if (typeof argument === 'number' || argument.length < minSize)
    throw new IommufdError('EFAULT', `${layout.name}: its ${minSize} bytes are not all there`);
  const bytes = new Uint8Array(layout.size);
  bytes.set(argument.subarray(0, minSize));
  const view = new StructView(layout, bytes);
  const argsz = new DataView(bytes.buffer).getUint32(0, true);
  if (argsz < minSize) throw new IommufdError('EINVAL', `${layout.name}.argsz: ${argsz} is less than ${minSize}`);
  return view;
}

function* getInfo(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const layout = UAPI.vfio_iommu_type1_info;
  const info = userStruct(argument, layout, 16);
  const ioasId = yield* compatIoas(call);
  const { ranges, alignment } = yield* allRanges(call, ioasId);
  const capabilities = capabilityChain(layout.size, [dmaAvail(), iovaRanges(ranges)]);
  const room = info.number('argsz');
  const total = layout.size + capabilities.length;
  const user = argument as Uint8Array;
  const given = Math.min(room, layout.size);
  if (user.length < Math.min(room, total)) throw new IommufdError('EFAULT', 'argsz: more than there is');
  // Capabilities come whole or not at all; then argsz says what is needed.
  if (room >= total) user.set(capabilities, layout.size);
  else info.set('argsz', total);
  info.set('flags', INFO_PGSIZES | INFO_CAPS);
  info.set('iova_pgsizes', alignment);
  info.set('cap_offset', room >= total ? layout.size : 0);
  user.set(info.bytes.subarray(0, given));
  return 0;
}

function* allRanges(call: IoctlCall, ioasId: number): Task<{ ranges: readonly IovaRange[]; alignment: bigint }> {
  const { agent, iommufd, process } = call;
  const reply: IoasIovaRangesReply = yield* iommufd.ioasIovaRanges(agent, { ioasId, numIovas: MOST_RANGES }, process);
  return { ranges: reply.allowedIovas, alignment: reply.outIovaAlignment };
}

function capability(id: number, body: Uint8Array): Uint8Array {
  const header = new StructView(UAPI.vfio_info_cap_header);
  header.set('id', id);
  header.set('version', 1);
  const bytes = new Uint8Array(Math.ceil((header.bytes.length + body.length) / 8) * 8);
  bytes.set(header.bytes);
  bytes.set(body, header.bytes.length);
  return bytes;
}

/** struct vfio_iommu_type1_info_dma_avail: no limit on mappings. */
const dmaAvail = (): Uint8Array => capability(CAP_DMA_AVAIL, new Uint8Array([0xff, 0xff, 0xff, 0xff]));

/** struct vfio_iommu_type1_info_cap_iova_range. */
function iovaRanges(ranges: readonly IovaRange[]): Uint8Array {
  const body = new DataView(new ArrayBuffer(8 + 16 * ranges.length));
  body.setUint32(0, ranges.length, true);
  for (const [i, { start, last }] of ranges.entries()) {
    body.setBigUint64(8 + 16 * i, start, true);
    body.setBigUint64(16 + 16 * i, last, true);
  }
  return capability(CAP_IOVA_RANGE, new Uint8Array(body.buffer));
}

/** The capabilities one after the other, each with the offset of the next from the start of the whole. */
function capabilityChain(start: number, capabilities: readonly Uint8Array[]): Uint8Array {
  const chain = new Uint8Array(capabilities.reduce((sum, each) => sum + each.length, 0));
  let at = 0;
  for (const [i, each] of capabilities.entries()) {
    chain.set(each, at);
    const header = new StructView(UAPI.vfio_info_cap_header, chain.subarray(at));
    at += each.length;
    header.set('next', i + 1 < capabilities.length ? start + at : 0);
  }
  return chain;
}

function* mapDma(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const map = userStruct(argument, UAPI.vfio_iommu_type1_dma_map);
  const flags = map.number('flags');
  if ((flags & ~(MAP_READ | MAP_WRITE)) !== 0)
    throw new IommufdError('EINVAL', `flags: 0x${flags.toString(16)} has more than READ and WRITE`);
  const { FIXED_IOVA, READABLE, WRITEABLE } = IoasMapFlag;
  const rights = ((flags & MAP_READ) !== 0 ? READABLE : 0) | ((flags & MAP_WRITE) !== 0 ? WRITEABLE : 0);
  const request = {
    flags: FIXED_IOVA | rights,
    ioasId: yield* compatIoas(call),
    userVa: map.bigint('vaddr'),
    length: map.bigint('size'),
    iova: map.bigint('iova'),
  };
  yield* call.iommufd.ioasMap(call.agent, request, call.process);
  return 0;
}

function* unmapDma(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const { agent, iommufd, process } = call;
  const unmap = userStruct(argument, UAPI.vfio_iommu_type1_dma_unmap);
  const flags = unmap.number('flags');
  if ((flags & ~UNMAP_ALL) !== 0) throw new IommufdError('EINVAL', `flags: 0x${flags.toString(16)} has more than ALL`);
  const [iova, size] = [unmap.bigint('iova'), unmap.bigint('size')];
  const ioasId = yield* compatIoas(call);
  const isAll = (flags & UNMAP_ALL) !== 0;
  if (isAll && (iova !== 0n || size !== 0n))
    throw new IommufdError('EINVAL', 'iova, size: not zero although flags say ALL');
  let unmapped: bigint;
  try {
    const range = { iova, length: isAll ? ALL_BYTES : size };
    unmapped = (yield* iommufd.ioasUnmap(agent, { ioasId, ...range }, process)).length;
  } catch (error) {
    const isEmpty = !isAll && error instanceof IommufdError && error.code === 'ENOENT' && (yield* nothingIn());
    if (!isEmpty) throw error;
    unmapped = 0n;
  }
  unmap.set('size', unmapped);
  (argument as Uint8Array).set(unmap.bytes);
  return 0;
}

function* nothingIn(): Task<boolean> {
  return false;
}
