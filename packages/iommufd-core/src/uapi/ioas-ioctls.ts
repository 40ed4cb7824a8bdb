import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { IovaRange } from '../ioas/reserved-iovas.ts';
import type { IoasIovaRangesReply } from '../object/ioctl-request.ts';
import { checkReserved, type IoctlCall, type IoctlEntry, ioctlEntry } from './ioctl-call.ts';
import { StructView } from './struct-layout.ts';
import { UAPI } from './uapi-structs.ts';
import { copyFromUser, copyToUser } from './user-memory.ts';

const RANGE = UAPI.iommu_iova_range;

/** The ranges of an ALLOW_IOVAS, read as far as they are any good, as the kernel does. @throws IommufdError EFAULT, EINVAL */
function readRanges({ memory }: IoctlCall, address: bigint, count: number): IovaRange[] {
  const ranges: IovaRange[] = [];
  for (let i = 0; i < count; i++) {
    const range = new StructView(RANGE, copyFromUser(memory, address + BigInt(i * RANGE.size), RANGE.size));
    const [start, last] = [range.bigint('start'), range.bigint('last')];
    if (start >= last) throw new IommufdError('EINVAL', `allowed_iovas[${i}]: its start is not below its last`);
    ranges.push({ start, last });
  }
  return ranges;
}

function* iovaRanges(
  call: IoctlCall,
  command: StructView<keyof typeof UAPI.iommu_ioas_iova_ranges.fields>,
): Task<void> {
  checkReserved(command, '__reserved');
  const request = { ioasId: command.number('ioas_id'), numIovas: command.number('num_iovas') };
  const write = (reply: IoasIovaRangesReply): void => {
    for (const [i, { start, last }] of reply.allowedIovas.entries()) {
      const range = new StructView(RANGE);
      range.set('start', start);
      range.set('last', last);
      copyToUser(call.memory, command.bigint('allowed_iovas') + BigInt(i * RANGE.size), range.bytes);
    }
    command.set('num_iovas', reply.numIovas);
    command.set('out_iova_alignment', reply.outIovaAlignment);
    call.respond();
  };
  try {
    write(yield* call.iommufd.ioasIovaRanges(call.agent, request));
  } catch (error) {
    // The kernel writes what fits, and how many there are, before it says that they did not fit.
    if (error instanceof IommufdError && error.code === 'EMSGSIZE' && error.reply !== undefined)
      write(error.reply as IoasIovaRangesReply);
    throw error;
  }
}

/** The ioctls on address spaces. */
export const IOAS_IOCTLS: readonly IoctlEntry[] = [
  ioctlEntry({
    nr: 0x81,
    name: 'IOAS_ALLOC',
    layout: UAPI.iommu_ioas_alloc,
    last: 'out_ioas_id',
    *execute(call, command) {
      const reply = yield* call.iommufd.ioasAlloc(call.agent, { flags: command.number('flags') }, call.process);
      command.set('out_ioas_id', reply.outIoasId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x82,
    name: 'IOAS_ALLOW_IOVAS',
    layout: UAPI.iommu_ioas_allow_iovas,
    last: 'allowed_iovas',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        ioasId: command.number('ioas_id'),
        // Read when it is wanted: a bad id comes before a bad address.
        get allowedIovas() {
          return readRanges(call, command.bigint('allowed_iovas'), command.number('num_iovas'));
        },
      };
      yield* call.iommufd.ioasAllowIovas(call.agent, request);
    },
  }),
  ioctlEntry({
    nr: 0x83,
    name: 'IOAS_COPY',
    layout: UAPI.iommu_ioas_copy,
    last: 'src_iova',
    *execute(call, command) {
      const request = {
        flags: command.number('flags'),
        dstIoasId: command.number('dst_ioas_id'),
        srcIoasId: command.number('src_ioas_id'),
        length: command.bigint('length'),
        dstIova: command.bigint('dst_iova'),
        srcIova: command.bigint('src_iova'),
      };
      const reply = yield* call.iommufd.ioasCopy(call.agent, request);
      command.set('dst_iova', reply.dstIova);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x84,
    name: 'IOAS_IOVA_RANGES',
    layout: UAPI.iommu_ioas_iova_ranges,
    last: 'out_iova_alignment',
    execute: iovaRanges,
  }),
  ioctlEntry({
    nr: 0x85,
    name: 'IOAS_MAP',
    layout: UAPI.iommu_ioas_map,
    last: 'iova',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        flags: command.number('flags'),
        ioasId: command.number('ioas_id'),
        userVa: command.bigint('user_va'),
        length: command.bigint('length'),
        iova: command.bigint('iova'),
      };
      const reply = yield* call.iommufd.ioasMap(call.agent, request, call.process);
      command.set('iova', reply.iova);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x86,
    name: 'IOAS_UNMAP',
    layout: UAPI.iommu_ioas_unmap,
    last: 'length',
    *execute(call, command) {
      const request = {
        ioasId: command.number('ioas_id'),
        iova: command.bigint('iova'),
        length: command.bigint('length'),
      };
      const reply = yield* call.iommufd.ioasUnmap(call.agent, request);
      command.set('length', reply.length);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x8f,
    name: 'IOAS_MAP_FILE',
    layout: UAPI.iommu_ioas_map_file,
    last: 'iova',
    since: '7.3',
    *execute(call, command) {
      const request = {
        flags: command.number('flags'),
        ioasId: command.number('ioas_id'),
        start: command.bigint('start'),
        length: command.bigint('length'),
        iova: command.bigint('iova'),
        get file() {
          const fd = command.number('fd');
          const file = call.files.get(fd);
          if (file === undefined) throw new IommufdError('EBADF', `fd: ${fd} is not open`);
          return file;
        },
      };
      const reply = yield* call.iommufd.ioasMapFile(call.agent, request, call.process);
      command.set('iova', reply.iova);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x92,
    name: 'IOAS_CHANGE_PROCESS',
    layout: UAPI.iommu_ioas_change_process,
    last: '__reserved',
    since: '7.3',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      yield* call.iommufd.ioasChangeProcess(call.agent, call.process);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x95,
    name: 'IOAS_NOIOMMU_GET_PA',
    layout: UAPI.iommu_ioas_noiommu_get_pa,
    last: 'out_phys',
    since: '7.3',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        flags: command.number('flags'),
        ioasId: command.number('ioas_id'),
        iova: command.bigint('iova'),
        length: command.bigint('length'),
      };
      yield* call.iommufd.ioasNoiommuGetPa(call.agent, request);
    },
  }),
];
