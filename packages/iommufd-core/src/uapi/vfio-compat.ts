import { hex } from '@faultline/address';
import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { Ioas } from '../ioas/ioas.ts';
import { type IovaRange, LAST_IOVA } from '../ioas/reserved-iovas.ts';
import { IoasMapFlag } from '../object/ioctl-flags.ts';
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

/** The IOAS of the compatibility, held while it is used. @throws IommufdError ENODEV */
function* withCompatIoas<R>({ iommufd }: IoctlCall, use: (ioas: Ioas, id: number) => Task<R>): Task<R> {
  const { table, vfioIoas } = iommufd.context;
  if (vfioIoas === null) throw new IommufdError('ENODEV', 'no IOAS is set for VFIO compatibility');
  const object = iommufd.context.get(vfioIoas.id, 'IOAS');
  try {
    return yield* use(object.ioas, object.id);
  } finally {
    table.put(object);
  }
}

function* checkExtension(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const { TYPE1, TYPE1V2, UNMAP_ALL: unmapAll, DMA_CC } = VfioExtension;
  switch (argument) {
    case TYPE1:
    case TYPE1V2:
    case unmapAll:
      return 1;
    case DMA_CC:
      // No modelled unit forces snooping (ECAP.SC): a HWPT is never coherent whatever the device does.
      return yield* withCompatIoas(call, ({ iopt }) => iopt.read(call.agent, () => (iopt.hwpts.length === 0 ? 1 : 0)));
    default:
      return 0;
  }
}

function* setIommu(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const { TYPE1, TYPE1V2 } = VfioExtension;
  if (argument !== TYPE1 && argument !== TYPE1V2)
    throw new IommufdError('EINVAL', 'VFIO_SET_IOMMU: neither type 1 nor type 1 v2');
  yield* withCompatIoas(call, function* ({ iopt }) {
    if (argument === TYPE1) yield* iopt.setLargePages(call.agent, false);
  });
  return 0;
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
  const { ranges, alignment } = yield* withCompatIoas(call, ({ iopt }) =>
    iopt.read(call.agent, () => ({ ranges: iopt.layout.reserved.holes(), alignment: iopt.layout.alignment })),
  );
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
  const place = { userVa: map.bigint('vaddr'), length: map.bigint('size'), iova: map.bigint('iova') };
  yield* withCompatIoas(call, (_, ioasId) =>
    call.iommufd.ioasMap(call.agent, { flags: FIXED_IOVA | rights, ioasId, ...place }, call.process),
  );
  return 0;
}

function* unmapDma(call: IoctlCall, argument: IoctlArgument): Task<number> {
  const { agent } = call;
  const unmap = userStruct(argument, UAPI.vfio_iommu_type1_dma_unmap);
  const flags = unmap.number('flags');
  if ((flags & ~UNMAP_ALL) !== 0) throw new IommufdError('EINVAL', `flags: 0x${flags.toString(16)} has more than ALL`);
  const [iova, size] = [unmap.bigint('iova'), unmap.bigint('size')];
  const unmapped = yield* withCompatIoas(call, function* ({ iopt }) {
    if ((flags & UNMAP_ALL) !== 0) {
      if (iova !== 0n || size !== 0n) throw new IommufdError('EINVAL', 'iova, size: not zero although flags say ALL');
      return yield* iopt.unmap(agent, 0n, LAST_IOVA);
    }
    if (size === 0n) throw new IommufdError('EINVAL', 'size: 0x0 is not positive');
    const last = iova + size - 1n;
    if (last > LAST_IOVA) throw new IommufdError('EOVERFLOW', `iova: ${hex(iova)} + ${hex(size)} wraps`);
    // Type 1 without v2 unmaps what it is asked to, whatever was mapped as one.
    if (!iopt.largePages) yield* iopt.cut(agent, iova === 0n ? [last] : [last, iova - 1n]);
    return yield* iopt.unmap(agent, iova, last); // unlike IOMMU_IOAS_UNMAP, to find nothing is no error
  });
  unmap.set('size', unmapped);
  (argument as Uint8Array).set(unmap.bytes);
  return 0;
}
