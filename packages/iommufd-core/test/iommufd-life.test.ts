import { Agent, Cost, type CostProfile, type Task, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AccessObject, HwptAllocFlag, IOMMU_IOAS_MAP_UNPINNED, IommufdError, STRATEGIES } from '../src/index.ts';
import { FakeDevice } from './fake-device.ts';
import { IommufdSetup, NOTHING_LEFT, RW, RW_FIXED, SMALL, THP } from './iommufd-setup.ts';

/*
 * Random programs of all calls, by one caller and by several at once in virtual time with random costs. Whatever they answer, it is an errno or a
 * reply; what a domain maps is what the areas say; and after the close nothing is left: no object, pin, charge, table page, domain-id or group.
 */

const id = fc.integer({ min: 1, max: 12 });
const iova = fc.integer({ min: 0, max: 15 }).map((n) => BigInt(n) * 0x8000n);
const pages = fc.constantFrom(1, 8, 16);
const anyCall = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('ioas' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('map' as const),
      id,
      iova,
      pages,
      fixed: fc.boolean(),
      unpinned: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('unmap' as const), id, iova, pages: fc.constantFrom(1, 8, 16, 128) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('copy' as const), id, from: id, iova, pages }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('attach' as const), device: fc.nat(3), id }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('detach' as const), device: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unbind' as const), device: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('bind' as const), device: fc.nat(3) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('hwpt' as const), device: fc.nat(3), id, flags: fc.nat(15), faultId: id }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('destroy' as const), id }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fault' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('access' as const), id }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pin' as const), iova, pages }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('small' as const), id, val64: fc.constantFrom(0n, 1n) }) },
);
type AnyCall = typeof anyCall extends fc.Arbitrary<infer T> ? T : never;

class Life {
  readonly setup = new IommufdSetup({ strategy: STRATEGIES.cut, mode: 'scalable' });
  readonly devices = [0x28, 0x30, 0x38, 0x40].map((sourceId, index) => {
    const vtd = this.setup.device(sourceId);
    const report = { name: vtd.name, paths: [{ path: 'read', canFault: true }] };
    return index === 3 ? new FakeDevice(vtd) : Object.assign(vtd, index === 2 ? {} : { report });
  });
  readonly ids = new Map<number, number>();
  readonly accesses: AccessObject[] = [];
  readonly tablePages = this.setup.unit.memory.used;
  answers = { ok: 0, errno: 0 };

  *make(agent: Agent, call: AnyCall): Task<void> {
    try {
      yield* this.#make(agent, call);
      this.answers.ok++;
    } catch (error) {
      if (!(error instanceof IommufdError)) throw error;
      expect(error.code).toMatch(/^E[A-Z]+$/);
      this.answers.errno++;
    }
  }

  *#make(agent: Agent, call: AnyCall): Task<void> {
    const { fd } = this.setup;
    switch (call.do) {
      case 'ioas':
        yield* fd.ioasAlloc(agent, { flags: 0 });
        return;
      case 'map': {
        const flags = (call.fixed ? RW_FIXED : RW) | (call.unpinned ? IOMMU_IOAS_MAP_UNPINNED : 0);
        const userVa = BigInt(call.unpinned ? THP : SMALL) * 4096n + call.iova;
        yield* fd.ioasMap(agent, {
          flags,
          ioasId: call.id,
          userVa,
          length: BigInt(call.pages) * 4096n,
          iova: call.iova,
        });
        return;
      }
      case 'unmap':
        yield* fd.ioasUnmap(agent, { ioasId: call.id, iova: call.iova, length: BigInt(call.pages) * 4096n });
        return;
      case 'copy': {
        const length = BigInt(call.pages) * 4096n;
        yield* fd.ioasCopy(agent, {
          flags: RW,
          dstIoasId: call.id,
          srcIoasId: call.from,
          length,
          dstIova: 0n,
          srcIova: call.iova,
        });
        return;
      }
      case 'bind':
        this.ids.set(call.device, yield* fd.bind(agent, this.devices[call.device] as FakeDevice));
        return;
      case 'access': {
        const access: AccessObject = yield* fd.accessCreate(agent, {
          needsPinPages: true,
          *unmap(who, first, length) {
            yield who.spends('asked to unmap', Cost.lock);
            yield* access.unpinPages(who, first, length);
          },
        });
        this.accesses.push(access);
        yield* fd.accessAttach(agent, access, call.id);
        return;
      }
      case 'pin':
        yield* this.accesses.at(-1)?.pinPages(agent, call.iova, BigInt(call.pages) * 4096n, true) ?? [];
        return;
      case 'fault':
        yield* fd.faultQueueAlloc(agent, { flags: 0 });
        return;
      case 'small':
        yield* fd.option(agent, { optionId: 1, op: 0, objectId: call.id, val64: call.val64 });
        return;
      case 'destroy':
        yield* fd.destroy(agent, { id: call.id });
        return;
      default:
        yield* this.#ofDevice(agent, call);
    }
  }

  *#ofDevice(agent: Agent, call: Extract<AnyCall, { device: number }>): Task<void> {
    const { fd } = this.setup;
    const devId = this.ids.get(call.device) ?? 99;
    if (call.do === 'attach') yield* fd.attach(agent, devId, call.id);
    else if (call.do === 'detach') yield* fd.detach(agent, devId);
    else if (call.do === 'hwpt') {
      const { flags, faultId } = call;
      const request = { flags: flags & ~HwptAllocFlag.NEST_PARENT, devId, ptId: call.id, dataType: 0, faultId };
      yield* fd.hwptAlloc(agent, { ...request, data: new Uint8Array(0) });
    } else if (call.do === 'unbind' && this.ids.has(call.device)) {
      this.ids.delete(call.device);
      yield* fd.unbind(agent, devId);
    }
  }

  /** While nobody is at work: every domain maps what its IOAS's pinned areas say, and nothing of others. */
  check(): void {
    for (const object of this.setup.fd.context.table.objects()) {
      expect([object.waitCount, object.finalized]).toEqual([1, true]);
      if (object.type !== 'IOAS') continue;
      const { ioas } = object as unknown as { ioas: import('../src/index.ts').Ioas };
      for (const hwpt of ioas.iopt.hwpts)
        for (let page = 0; page < 0x100; page++) {
          const area = ioas.areas.find(page);
          const frame = hwpt.domain.frameAt(page);
          if (!area) expect(frame).toBe(-1);
          else if (!area.unpinned) {
            const index = page - area.page + area.wholeSpan.first;
            expect(frame).toBe(area.memory.runs({ first: index, last: index })[0]?.pfn);
          }
        }
    }
  }

  end(): void {
    expect(this.setup.leftovers()).toEqual(NOTHING_LEFT);
    expect(this.setup.unit.memory.used).toBeLessThanOrEqual(this.tablePages + 1); // a context table stays
    expect(this.setup.driver.takeDomainId()).toBe(1);
    const { mm, host, agent } = this.setup;
    this.setup.run(mm.exit(agent));
    expect(host.allocator.allocatedFrames).toBe(0);
  }
}

it('random programs of one caller leave nothing behind', () => {
  const answers = { ok: 0, errno: 0 };
  fc.assert(
    fc.property(fc.array(anyCall, { minLength: 10, maxLength: 60 }), (calls) => {
      const life = new Life();
      for (const call of [{ do: 'bind', device: 0 } as const, { do: 'ioas' } as const, ...calls]) {
        life.setup.run(life.make(life.setup.agent, call));
        life.check();
      }
      life.end();
      answers.ok += life.answers.ok;
      answers.errno += life.answers.errno;
    }),
    { numRuns: 120 },
  );
  expect(answers.ok).toBeGreaterThan(answers.errno / 10); // it is not all errors
});

describe('several callers at once', () => {
  const costs = fc.array(fc.nat(50), { minLength: 32, maxLength: 64 });

  it('in virtual time with random costs leave nothing behind, and none waits for ever', () => {
    const program = fc.array(anyCall, { minLength: 5, maxLength: 25 });
    fc.assert(
      fc.property(fc.array(program, { minLength: 2, maxLength: 4 }), costs, (programs, ns) => {
        const life = new Life();
        const profile = Object.fromEntries(
          Object.keys(Cost).map((name, index) => [
            name,
            { ns: name === 'free' ? 0 : (ns[index % ns.length] as number), source: 'test' },
          ]),
        ) as unknown as CostProfile;
        const time = new VirtualTime(profile);
        const { unit } = life.setup;
        const hardware = new Agent('hardware');
        time.spawn(hardware, unit.run(hardware), { daemon: true });
        life.setup.run(life.make(life.setup.agent, { do: 'bind', device: 0 }));
        life.setup.run(life.make(life.setup.agent, { do: 'ioas' }));
        const runs = programs.map((calls, index) => {
          const agent = new Agent(`caller ${index}`);
          return time.spawn(
            agent,
            (function* () {
              for (const call of calls) yield* life.make(agent, call);
            })(),
          );
        });
        time.run();
        expect(runs.map((each) => each.done)).toEqual(runs.map(() => true));
        life.check();
        const closer = new Agent('closer');
        time.spawn(closer, life.setup.fd.close(closer));
        time.run();
        life.end();
      }),
      { numRuns: 150 },
    );
  });
});
