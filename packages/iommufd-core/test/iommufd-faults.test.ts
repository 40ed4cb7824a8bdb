import { Agent, Cost, type Task, VirtualTime } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type DeviceLie,
  type DeviceReport,
  FaultObject,
  HwptAllocFlag,
  IOMMU_IOAS_MAP_UNPINNED,
  type IommuDevice,
  IopfQueue,
  STRATEGIES,
} from '../src/index.ts';
import { PROFILE } from './host-setup.ts';
import { IommufdSetup, NOTHING_LEFT, RW_FIXED, SMALL } from './iommufd-setup.ts';

const SOURCE = 0x28;
const GROUPS = 4;
const ABLE: DeviceReport = {
  name: 'device',
  paths: [
    { path: 'read', canFault: true },
    { path: 'write', canFault: true },
  ],
};

/** An iommufd with a device that sends page requests, all of it in virtual time. */
function world(report: DeviceReport = ABLE) {
  const setup = new IommufdSetup({ mode: 'scalable', strategy: STRATEGIES.cut });
  const { fd, unit, driver } = setup;
  const time = new VirtualTime(PROFILE);
  const spawn = <T>(name: string, task: (agent: Agent) => Task<T>, daemon = false) => {
    const agent = new Agent(name);
    return time.spawn(agent, task(agent), { daemon });
  };
  const run = <T>(task: (agent: Agent) => Task<T>): T => {
    const done = spawn('user', task);
    time.run();
    return done.value as T;
  };
  const answers: number[][] = Array.from({ length: GROUPS }, () => []);
  const endpoint = {
    *invalidateDeviceTlb(agent: Agent): Task<'completed'> {
      yield agent.spends('invalidate', Cost.deviceTlbInvalidate);
      return 'completed';
    },
    pageGroupResponse: (groupIndex: number, code: number) => void answers[groupIndex]?.push(code),
  };
  const vtd = setup.device(SOURCE, { endpoint });
  const { pageRequests } = driver;
  if (!pageRequests) throw new Error('no page requests');
  const lies: DeviceLie[] = [];
  const queue: IopfQueue = new IopfQueue({ source: pageRequests, handlerOf: () => fd.pageFaultHandler(device) });
  const onLie = (lie: DeviceLie) => lies.push(lie);
  const device: IommuDevice = Object.assign(vtd, { report, pageFaults: { queue, sourceId: SOURCE }, onLie });
  spawn('hardware', (agent) => unit.run(agent), true);
  spawn('interrupt', (agent) => queue.interruptThread(agent), true);
  for (const name of ['worker 1', 'worker 2']) spawn(name, (agent) => queue.worker(agent), true);
  const devId = run((agent) => fd.bind(agent, device));
  const { outIoasId: ioasId } = run((agent) => fd.ioasAlloc(agent, { flags: 0 }));
  const map = { flags: RW_FIXED | IOMMU_IOAS_MAP_UNPINNED, ioasId, userVa: BigInt(SMALL) * 4096n, length: 64n * 4096n };
  run((agent) => fd.ioasMap(agent, { ...map, iova: 0n }));
  const send = function* (agent: Agent): Task<void> {
    for (let groupIndex = 0; groupIndex < GROUPS; groupIndex++)
      for (const last of [false, true]) {
        const page = 2 * groupIndex + (last ? 1 : 0);
        yield* unit.pageRequest(agent, { sourceId: SOURCE, page, read: true, write: true, last, groupIndex });
      }
  };
  return { setup, fd, time, spawn, run, answers, queue, device, devId, ioasId, send, lies };
}
type World = ReturnType<typeof world>;

describe('page groups of a device that an iommufd serves', () => {
  const newQueue = function* ({ fd }: World, agent: Agent) {
    return (yield* fd.faultQueueAlloc(agent, { flags: 0 })).outFaultId;
  };
  const EVENTS: Record<string, (made: World, agent: Agent) => Task<unknown>> = {
    detach: ({ fd, devId }, agent) => fd.detach(agent, devId),
    unbind: ({ fd, devId }, agent) => fd.unbind(agent, devId),
    close: ({ fd }, agent) => fd.close(agent),
    *'a move to another HWPT, whose old one goes'({ fd, devId, ioasId }, agent) {
      const to = { flags: 0, devId, ptId: ioasId, dataType: 0, data: new Uint8Array(0), faultId: 0 };
      const { outHwptId } = yield* fd.hwptAlloc(agent, to);
      yield* fd.attach(agent, devId, outHwptId);
    },
    *'a move to a HWPT whose faults nobody reads, and a detach'(made, agent) {
      const { fd, devId, ioasId } = made;
      const faultId = yield* newQueue(made, agent);
      const flags = HwptAllocFlag.FAULT_ID_VALID;
      const to = { flags, devId, ptId: ioasId, dataType: 0, data: new Uint8Array(0), faultId };
      const { outHwptId } = yield* fd.hwptAlloc(agent, to);
      yield* fd.attach(agent, devId, outHwptId);
      yield agent.spends('wait', Cost.nanosecond, 200);
      yield* fd.detach(agent, devId);
    },
  };
  for (const [what, event] of Object.entries(EVENTS))
    it(`have one answer each: ${what}, at any time`, () => {
      const codes = new Set<number>();
      for (let delay = 0; delay < 1800; delay += 30) {
        const made = world();
        made.run((agent) => made.fd.attach(agent, made.devId, made.ioasId));
        made.spawn('device', made.send);
        const run = made.spawn('event', function* (agent) {
          yield agent.spends('wait', Cost.nanosecond, delay);
          yield* event(made, agent);
        });
        made.time.run();
        expect(run.done).toBe(true);
        expect(made.answers.map((answers) => answers.length)).toEqual(Array(GROUPS).fill(1));
        expect(made.queue.outstanding).toBeLessThanOrEqual(1); // a request whose LAST found no tables
        for (const code of made.answers.flat()) codes.add(code);
        if (what !== 'close') {
          made.run((agent) => made.fd.close(agent));
          expect(made.setup.mm.accountedPinBytes).toBe(0);
        }
        expect(made.fd.context.table.size).toBe(NOTHING_LEFT.objects);
        expect([made.lies, made.setup.unit.faults.status & 0x70]).toEqual([[], 0]); // no IQE, ICE, ITE
      }
      expect([...codes].sort()).toEqual([0, 1]);
    });

  it('reach user space if its HWPT has a fault queue, and its answers reach the device', () => {
    const made = world();
    const { fd, devId, ioasId, run, send, answers } = made;
    const outFaultId = run((agent) => newQueue(made, agent));
    const to = { flags: HwptAllocFlag.FAULT_ID_VALID, devId, ptId: ioasId, dataType: 0, data: new Uint8Array(0) };
    const { outHwptId } = run((agent) => fd.hwptAlloc(agent, { ...to, faultId: outFaultId }));
    run((agent) => fd.attach(agent, devId, outHwptId));
    run(send);
    const file = fd.context.table.objects().find((object) => object instanceof FaultObject);
    if (!(file instanceof FaultObject)) throw new Error('no fault queue');
    const records = run((agent) => file.read(agent, 40 * 8));
    expect(records.map(({ addr, grpid, flags, perm, devId: id }) => [addr, grpid, flags, perm, id])).toEqual(
      Array.from({ length: 8 }, (_, i) => [BigInt(i) * 4096n, i >> 1, (i & 1) * 2, 3, devId]),
    );
    const responses = [...new Set(records.map(({ cookie }) => cookie))].map((cookie, i) => ({ cookie, code: i & 1 }));
    expect(run((agent) => file.write(agent, responses, 32))).toBe(32);
    expect(answers).toEqual([[0], [1], [0], [1]]);
  });

  it('that its report rules out are reported by name', () => {
    const made = world({
      name: 'device',
      paths: [
        { path: 'read', canFault: true },
        { path: 'write', canFault: false, ranges: [{ page: 60, pages: 1 }] },
      ],
    });
    made.run((agent) => made.fd.attach(agent, made.devId, made.ioasId));
    made.run(made.send);
    expect(made.lies).toHaveLength(8);
    expect(made.lies[0]).toMatchObject({ device: 'device', kind: 'request-without-right', page: 0, write: true });
  });
});
