import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { faultFile, veventFile } from './event-file.ts';
import type { OpenFile } from './file-table.ts';
import { checkReserved, type IoctlCall, type IoctlEntry, ioctlEntry } from './ioctl-call.ts';
import { UAPI } from './uapi-structs.ts';

/** Puts a new object's file behind a descriptor; without room for one the object goes again. @throws IommufdError EMFILE */
function* install(call: IoctlCall, id: number, file: OpenFile): Task<number> {
  if (call.files.hasRoom) return call.files.open(file);
  file.close?.();
  yield* call.iommufd.destroy(call.agent, { id });
  throw new IommufdError('EMFILE', 'fd: the process has no descriptor left');
}

/** The ioctls on ids, options, fault queues and virtual IOMMUs. */
export const OBJECT_IOCTLS: readonly IoctlEntry[] = [
  ioctlEntry({
    nr: 0x80,
    name: 'DESTROY',
    layout: UAPI.iommu_destroy,
    last: 'id',
    *execute(call, command) {
      yield* call.iommufd.destroy(call.agent, { id: command.number('id') });
    },
  }),
  ioctlEntry({
    nr: 0x87,
    name: 'OPTION',
    layout: UAPI.iommu_option,
    last: 'val64',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        optionId: command.number('option_id'),
        op: command.number('op'),
        objectId: command.number('object_id'),
        val64: command.bigint('val64'),
      };
      const reply = yield* call.iommufd.option(call.agent, request, call.process);
      command.set('val64', reply.val64);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x88,
    name: 'VFIO_IOAS',
    layout: UAPI.iommu_vfio_ioas,
    last: '__reserved',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = { ioasId: command.number('ioas_id'), op: command.number('op') };
      const reply = yield* call.iommufd.vfioIoas(call.agent, request);
      command.set('ioas_id', reply.ioasId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x8e,
    name: 'FAULT_QUEUE_ALLOC',
    layout: UAPI.iommu_fault_alloc,
    last: 'out_fault_fd',
    *execute(call, command) {
      const reply = yield* call.iommufd.faultQueueAlloc(call.agent, { flags: command.number('flags') });
      command.set('out_fault_fd', yield* install(call, reply.outFaultId, faultFile(reply.outFaultFile)));
      command.set('out_fault_id', reply.outFaultId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x90,
    name: 'VIOMMU_ALLOC',
    layout: UAPI.iommu_viommu_alloc,
    last: 'out_viommu_id',
    since: '7.3',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        flags: command.number('flags'),
        type: command.number('type'),
        devId: command.number('dev_id'),
        hwptId: command.number('hwpt_id'),
      };
      const reply = yield* call.iommufd.viommuAlloc(call.agent, request);
      command.set('out_viommu_id', reply.outViommuId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x91,
    name: 'VDEVICE_ALLOC',
    layout: UAPI.iommu_vdevice_alloc,
    last: 'virt_id',
    since: '7.3',
    *execute(call, command) {
      const request = {
        viommuId: command.number('viommu_id'),
        devId: command.number('dev_id'),
        virtId: command.bigint('virt_id'),
      };
      const reply = yield* call.iommufd.vdeviceAlloc(call.agent, request);
      command.set('out_vdevice_id', reply.outVdeviceId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x93,
    name: 'VEVENTQ_ALLOC',
    layout: UAPI.iommu_veventq_alloc,
    last: 'out_veventq_fd',
    since: '7.3',
    *execute(call, command) {
      checkReserved(command, '__reserved');
      const request = {
        flags: command.number('flags'),
        viommuId: command.number('viommu_id'),
        type: command.number('type'),
        veventqDepth: command.number('veventq_depth'),
      };
      const reply = yield* call.iommufd.veventqAlloc(call.agent, request);
      command.set('out_veventq_fd', yield* install(call, reply.outVeventqId, veventFile(reply.outVeventqFile)));
      command.set('out_veventq_id', reply.outVeventqId);
      call.respond();
    },
  }),
  ioctlEntry({
    nr: 0x94,
    name: 'HW_QUEUE_ALLOC',
    layout: UAPI.iommu_hw_queue_alloc,
    last: 'length',
    since: '7.3',
    *execute(call, command) {
      const request = {
        flags: command.number('flags'),
        viommuId: command.number('viommu_id'),
        type: command.number('type'),
        index: command.number('index'),
        nestingParentIova: command.bigint('nesting_parent_iova'),
        length: command.bigint('length'),
      };
      yield* call.iommufd.hwQueueAlloc(call.agent, request);
    },
  }),
];
