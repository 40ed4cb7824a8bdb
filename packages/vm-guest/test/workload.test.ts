import { DEFAULT_DEVICE_TLB, DmaStatus, Endpoint, NVME_FAULTS, WorkQueue } from '@faultline/pci-device';
import { Agent, Cost, type CostProfile, RandomStream, runToEnd, type Task, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import { describe, expect, it } from 'vitest';
import {
  bootGuest,
  cpuTouches,
  GuestLayout,
  GuestPageAllocator,
  networkReceive,
  randomAcceleratorDma,
  runBalloon,
  sequentialDiskReads,
  type WorkloadContext,
} from '../src/index.ts';

const PROFILE = Object.fromEntries(
  Object.keys(Cost).map((name) => [name, { ns: name === 'nanosecond' ? 1 : 0, source: 'test' }]),
) as unknown as CostProfile;

interface Access {
  readonly page: number;
  readonly write: boolean;
  readonly tagLo: number;
  readonly tagHi: number;
}

/** A queue over memory that is all there, and the run of one workload on it until `untilNs`. */
function run(untilNs: number, seed: number, workload: (context: WorkloadContext, queue: WorkQueue) => Task<void>) {
  const time = new VirtualTime(PROFILE);
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 64 }) });
  const domain = new VtdDomain({ driver: new VtdDriver({ unit, pageRequestEntries: 128 }), domainId: 1 });
  runToEnd(domain.map(new Agent('driver'), { page: 0, frame: 0x80000, pages: 512, write: true }));
  const accesses: Access[] = [];
  const endpoint = new Endpoint({
    name: 'device',
    sourceId: 8,
    unit,
    target: {
      access: (_endpoint, page, _frame, write, tagLo, tagHi) => accesses.push({ page, write, tagLo, tagHi }),
      missing: () => undefined,
      answered: () => undefined,
    },
    faults: NVME_FAULTS,
    deviceTlb: DEFAULT_DEVICE_TLB,
  });
  domain.attach(8, endpoint);
  const requests: { startNs: number; completed: number }[] = [];
  const agent = new Agent('workload');
  const context: WorkloadContext = {
    agent,
    random: new RandomStream(seed, 'workload'),
    now: () => time.nowNs,
    stopped: () => time.nowNs >= untilNs,
    remainingNs: () => Math.max(0, untilNs - time.nowNs),
    finished: (startNs, result) => requests.push({ startNs, completed: result.completed }),
  };
  time.spawn(agent, workload(context, new WorkQueue({ endpoint, descriptorPage: 1, completionPage: 2 })));
  time.run();
  const data = accesses.filter(({ page }) => page > 2);
  return { requests, data, accesses, endpoint, endNs: time.nowNs };
}

describe('workloads', () => {
  it('a disk reads sequentially into its buffers in turn, one command per medium time', () => {
    const cursor = { next: 0 };
    const options = { buffers: [10, 11, 12], pagesPerRequest: 2, mediaNs: 100, cursor };
    const { requests, data, endNs } = run(300, 1, (context, queue) =>
      sequentialDiskReads(context, { queue, ...options }),
    );
    expect(requests).toEqual([0, 100, 200].map((startNs) => ({ startNs, completed: 4 })));
    expect(data.map(({ page }) => page)).toEqual([10, 11, 12, 10, 11, 12]);
    expect(data.every(({ write }) => write)).toBe(true);
    expect(data.map(({ tagLo }) => tagLo)).toEqual([0, 1, 2, 3, 4, 5]);
    expect([cursor.next, endNs]).toEqual([6, 300]);
  });

  it('a NIC puts each packet into the next buffer, at its own pace', () => {
    const { requests, data } = run(50, 1, (context, queue) =>
      networkReceive(context, { queue, buffers: [20, 21], intervalNs: 10 }),
    );
    expect(requests.map(({ startNs }) => startNs)).toEqual([10, 20, 30, 40, 50]);
    expect(data.map(({ page }) => page)).toEqual([20, 21, 20, 21, 20]);
  });

  it('an accelerator reads and writes pages that it picks; one seed, one run', () => {
    const go = (seed: number) =>
      run(1000, seed, (context, queue) =>
        randomAcceleratorDma(context, {
          queue,
          pickPage: (random) => 100 + random.below(100),
          pagesPerRequest: 4,
          writeFraction: 0.5,
          thinkNs: 10,
        }),
      );
    const first = go(1);
    expect(first.requests).toHaveLength(100);
    expect(first.data).toHaveLength(400);
    expect(first.data.every(({ page }) => page >= 100 && page < 200)).toBe(true);
    const writes = first.data.filter(({ write }) => write).length;
    expect(writes).toBeGreaterThan(100);
    expect(writes).toBeLessThan(300);
    // No two writes carry the same tag.
    const tags = first.data.filter(({ write }) => write).map(({ tagLo, tagHi }) => `${tagHi}:${tagLo}`);
    expect(new Set(tags).size).toBe(tags.length);
    expect(go(1).data).toEqual(first.data);
    expect(go(2).data).not.toEqual(first.data);
  });

  it('a workload on a dead device goes on in time and ends', () => {
    const { requests, endpoint } = run(100, 1, function* (context, queue) {
      expect(yield* queue.endpoint.dmaPage(context.agent, 'completion', 9999, true, 0, 0)).toBe(DmaStatus.aborted);
      yield* networkReceive(context, { queue, buffers: [20], intervalNs: 10 });
    });
    expect([endpoint.dead, requests.length, requests[0]?.completed]).toEqual([true, 10, 0]);
  });

  it('a CPU touches pages at its pace, half of them with a write', () => {
    const touched: boolean[] = [];
    const cpu = {
      *access(agent: Agent, page: number, write: boolean): Task<void> {
        yield agent.spends('touch', Cost.entryRead);
        expect(page).toBe(7);
        touched.push(write);
      },
      writeWords: () => undefined,
    };
    run(1000, 1, (context) => cpuTouches(context, { cpu, pickPage: () => 7, intervalNs: 10 }));
    expect(touched).toHaveLength(100);
    const writes = touched.filter((write) => write).length;
    expect(writes).toBeGreaterThan(25);
    expect(writes).toBeLessThan(75);
  });
});

describe('boot', () => {
  it('writes a page directory of the direct map at the start of each GiB of RAM', () => {
    const layout = new GuestLayout((3n << 30n) + (1n << 21n));
    const allocator = new GuestPageAllocator(layout, 0);
    const order: string[] = [];
    const directories = new Map<number, BigUint64Array>();
    const cpu = {
      *access(agent: Agent, page: number, write: boolean): Task<void> {
        yield agent.spends('touch', Cost.entryRead);
        order.push(`${write ? 'write' : 'read'} ${page}`);
      },
      writeWords(page: number, words: BigUint64Array): void {
        order.push(`words ${page}`);
        directories.set(page, words);
      },
    };
    runToEnd(bootGuest(new Agent('vcpu'), layout, cpu, allocator));
    const pages = [0, 262144, 4 * 262144, 5 * 262144];
    expect(order).toEqual(pages.flatMap((page) => [`write ${page}`, `words ${page}`]));
    expect(pages.every((page) => allocator.isTaken(page))).toBe(true);
    const high = directories.get(4 * 262144);
    // 2M leaves (PS) of present, writable, accessed, dirty memory; every fourth is a table.
    expect([high?.[0], high?.[1]]).toEqual([0x1_0000_0063n, 0x1_0020_00e3n]);
    expect(high?.every((word) => (word & 0x63n) === 0x63n)).toBe(true);
    // The last GiB holds one 2M block only.
    expect([...(directories.get(5 * 262144) ?? [])].filter((word) => word !== 0n)).toEqual([0x1_4000_0063n]);
  });
});

describe('the balloon', () => {
  it('inflates by batches to its size, holds, gives all back, and begins again', () => {
    const allocator = new GuestPageAllocator(new GuestLayout(4n << 20n), 0);
    const log: [ns: number, ballooned: number][] = [];
    const given: number[] = [];
    run(20_000, 1, (context) => {
      const options = { batch: 8, pages: 20, intervalNs: 100, holdNs: 2000, ramPages: 1024 };
      const stopped = (): boolean => {
        if (log.at(-1)?.[1] !== allocator.ballooned) log.push([context.now(), allocator.ballooned]);
        return context.stopped();
      };
      return runBalloon(
        { ...context, stopped },
        {
          ...options,
          allocator,
          inflated: () => undefined,
          *discard(agent, page) {
            yield agent.spends('discard', Cost.free);
            expect(allocator.inBalloon(page)).toBe(true);
            given.push(page);
          },
        },
      );
    });
    expect(log.slice(0, 8).map(([, pages]) => pages)).toEqual([0, 8, 16, 20, 12, 4, 0, 8]);
    expect(new Set(given.slice(0, 20)).size).toBe(20);
    expect((log[4]?.[0] ?? 0) - (log[3]?.[0] ?? 0)).toBeGreaterThanOrEqual(2000);
  });
});
