import type { Task } from '@faultline/sim';
import { PageRequestStatus, Register, type RegisterFile } from '@faultline/vtd-remapping';
import type { Protocol } from '../protocol.ts';
import type { FaultPath, FaultPathDefect } from '../worlds/fault-path.ts';
import { pageRequestProtocol } from '../worlds/page-request-protocol.ts';
import type { ExploredDefect } from './defect.ts';

/** The same path with some methods of its source replaced. */
const withSource = ({ source, hwpt }: FaultPath, replaced: Partial<FaultPath['source']>): FaultPath => ({
  source: {
    take: (agent) => source.take(agent),
    clearOverflow: () => source.clearOverflow(),
    respond: (agent, ...answer) => source.respond(agent, ...answer),
    ...replaced,
  },
  hwpt,
});

/** A handler that says success, and maps once the answer is out. */
export const mapsLate: FaultPathDefect = ({ source, hwpt }) => {
  const late: { readonly page: number; readonly write: boolean }[] = [];
  const path: FaultPath = {
    source,
    hwpt: {
      // biome-ignore lint/correctness/useYield: it does nothing yet
      *handleFault(_agent, page, write): Task<0> {
        late.push({ page, write });
        return 0;
      },
    },
  };
  return withSource(path, {
    *respond(agent, ...answer): Task<void> {
      yield* source.respond(agent, ...answer);
      for (const { page, write } of late.splice(0)) yield* hwpt.handleFault(agent, page, write);
    },
  });
};

const answersTwice: FaultPathDefect = (path) =>
  withSource(path, {
    *respond(agent, ...answer): Task<void> {
      yield* path.source.respond(agent, ...answer);
      yield* path.source.respond(agent, ...answer);
    },
  });

const answersEachRequest: FaultPathDefect = (path) =>
  withSource(path, {
    *take(agent) {
      const { requests, overflowed } = yield* path.source.take(agent);
      return { requests: requests.map((request) => ({ ...request, last: true })), overflowed };
    },
  });

const throwsRingAway: FaultPathDefect = (path) =>
  withSource(path, {
    *take(agent) {
      const { requests, overflowed } = yield* path.source.take(agent);
      return { requests: overflowed ? [] : requests, overflowed };
    },
  });

/** PPR is cleared when the head has been moved, and not before the tail is read. */
function clearsPprLast(registers: RegisterFile): void {
  const write32 = registers.write32.bind(registers);
  const write64 = registers.write64.bind(registers);
  registers.write32 = (register, value) => {
    if (register !== Register.PRS || value !== PageRequestStatus.pending) write32(register, value);
  };
  registers.write64 = (register, value) => {
    write64(register, value);
    if (register === Register.PQH) write32(Register.PRS, PageRequestStatus.pending);
  };
}

/** Where a walk decides whether a page is there. */
const throughTables = (protocol: Protocol): Protocol => ({
  ...protocol,
  configurations: protocol.configurations.filter(({ name }) => name.startsWith('DMA')),
});

/** Defects of whoever serves page requests. */
export const PAGE_REQUEST_DEFECTS: readonly ExploredDefect[] = [
  {
    id: 'response-before-map',
    title: 'a page group is answered before what it asked for is mapped',
    source: 'VT-d Rev 5.10, 7.6: the response comes after all requests of the group have been serviced',
    text: 'The handler reports success and the answer is on its way while the entry is still to be written. The device asks for the translation again, finds nothing, and faults again; whatever counts its tries gives up on a page that is legitimate.',
    breaks: ['I13'],
    protocol: throughTables(pageRequestProtocol({ faultPath: mapsLate })),
  },
  {
    id: 'group-answered-twice',
    title: 'a page group gets a second answer',
    source: 'PCIe ATS: a Page Request Group Index is free for another group with the first answer',
    text: 'The device uses the index again for its next group, which the second answer then ends before it was handled.',
    breaks: ['I9'],
    protocol: pageRequestProtocol({ faultPath: answersTwice }),
  },
  {
    id: 'answer-to-non-last',
    title: 'a page group is answered for a request that is not its last',
    source: 'VT-d Rev 5.10, 7.6: no response to a request with LPIG=0',
    text: 'Every request is taken for a group of its own. The device gets an answer while it is still sending, and another for the last request: it goes on before all its pages are there, and the second answer meets whatever group uses the index by then.',
    breaks: ['I9', 'I13'],
    protocol: pageRequestProtocol({ faultPath: answersEachRequest }),
  },
  {
    id: 'overflow-loses-group',
    title: 'an overflow is handled by throwing away what is in the queue',
    source: 'VT-d Rev 5.10, table 31: the unit answers only those last requests that it did not record',
    text: 'PRO says that requests were lost, not which. Those in the ring were not: nobody else answers them, and a device that waits for one waits for ever. Only incomplete groups may be dropped, since their last request is among the lost or comes again.',
    breaks: ['I9'],
    protocol: pageRequestProtocol({ faultPath: throwsRingAway }),
  },
  {
    id: 'ppr-cleared-last',
    title: 'the pending bit is cleared after the queue was read',
    source:
      'Linux’s prq_event_thread() clears PPR first for this reason; the RISC-V IOMMU specification had the wrong order in its advice (riscv-iommu issue 169)',
    text: 'A request that arrives between the read of the tail and the write to PRS finds PPR set, and the unit raises no event for it (VT-d Rev 5.10, 7.5). Then PPR is cleared: the request lies in the ring, and nobody looks until another one comes.',
    breaks: ['I9'],
    protocol: pageRequestProtocol({ prepare: clearsPprLast }),
  },
];
