import type { Agent, Task } from '@faultline/sim';
import type { FaultQueue } from '../object/fault-object.ts';
import type { VeventQueue } from '../object/veventq-object.ts';
import type { OpenFile } from './file-table.ts';
import { StructView } from './struct-layout.ts';
import { UAPI } from './uapi-structs.ts';

const PGFAULT = UAPI.iommu_hwpt_pgfault;
const RESPONSE = UAPI.iommu_hwpt_page_response;
const VEVENT = UAPI.iommufd_vevent_header;

/** The file behind `out_fault_fd`: records of struct iommu_hwpt_pgfault out, struct iommu_hwpt_page_response in. */
export function faultFile(queue: FaultQueue): OpenFile {
  return {
    name: '[iommufd-pgfault]',
    *read(agent: Agent, into: Uint8Array): Task<number> {
      let at = 0;
      for (const fault of yield* queue.read(agent, into.length)) {
        const record = new StructView(PGFAULT, into.subarray(at, at + PGFAULT.size));
        record.bytes.fill(0);
        record.set('flags', fault.flags);
        record.set('dev_id', fault.devId);
        record.set('pasid', fault.pasid);
        record.set('grpid', fault.grpid);
        record.set('perm', fault.perm);
        record.set('addr', fault.addr);
        record.set('length', fault.length);
        record.set('cookie', fault.cookie);
        at += PGFAULT.size;
      }
      return at;
    },
    write(agent: Agent, from: Uint8Array): Task<number> {
      const responses = [];
      for (let at = 0; at + RESPONSE.size <= from.length; at += RESPONSE.size) {
        const record = new StructView(RESPONSE, from.subarray(at, at + RESPONSE.size));
        responses.push({ cookie: record.number('cookie'), code: record.number('code') });
      }
      return queue.write(agent, responses, from.length);
    },
    poll: () => queue.poll(),
    close: () => queue.close(),
  };
}

/** The file behind `out_veventq_fd`: struct iommufd_vevent_header and the event's data, one after the other. */
export function veventFile(queue: VeventQueue): OpenFile {
  return {
    name: '[iommufd-viommu-event]',
    *read(agent: Agent, into: Uint8Array): Task<number> {
      let at = 0;
      for (const { flags, sequence, data } of yield* queue.read(agent, into.length)) {
        const header = new StructView(VEVENT, into.subarray(at, at + VEVENT.size));
        header.set('flags', flags);
        header.set('sequence', sequence);
        into.set(data, at + VEVENT.size);
        at += VEVENT.size + data.length;
      }
      return at;
    },
    poll: () => queue.poll(),
    close: () => queue.close(),
  };
}
