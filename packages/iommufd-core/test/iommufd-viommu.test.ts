import { describe, expect, it } from 'vitest';
import { HwptAllocFlag, type VeventqAllocReply, VeventqObject } from '../src/index.ts';
import { FakeDevice } from './fake-device.ts';
import { IommufdSetup, NOTHING_LEFT } from './iommufd-setup.ts';

const { NEST_PARENT } = HwptAllocFlag;

/** Two devices behind one unit (1, 2), one behind another (3), IOAS 4, nest parent 5. */
function ready() {
  const setup = new IommufdSetup();
  const devices = [0x28, 0x30].map((id) => new FakeDevice(setup.device(id)));
  devices.push(new FakeDevice(setup.device(0x38), { unit: {} }));
  const ids = devices.map((device) => setup.bind(device));
  const ioas = setup.ioas();
  const parent = setup.hwpt(1, ioas, { flags: NEST_PARENT }) as number;
  const { fd, agent } = setup;
  const viommu = (changes: object = {}) => {
    const reply = setup.call(fd.viommuAlloc(agent, { flags: 0, type: 1, devId: 1, hwptId: parent, ...changes }));
    return typeof reply === 'string' ? reply : reply.outViommuId;
  };
  const vdevice = (viommuId: number, devId: number, virtId: bigint) => {
    const reply = setup.call(fd.vdeviceAlloc(agent, { viommuId, devId, virtId }));
    return typeof reply === 'string' ? reply : reply.outVdeviceId;
  };
  const veventq = (viommuId: number, changes: object = {}): VeventqAllocReply | string =>
    setup.call(fd.veventqAlloc(agent, { flags: 0, viommuId, type: 1, veventqDepth: 2, ...changes }));
  return { setup, ids, ioas, parent, viommu, vdevice, veventq, fd, agent };
}

describe('VIOMMU', () => {
  it('errnos, and what it keeps', () => {
    const { setup, ioas, parent, viommu } = ready();
    expect([viommu({ flags: 1 }), viommu({ type: 0 }), viommu({ type: 2 })]).toEqual(Array(3).fill('EOPNOTSUPP'));
    expect([viommu({ devId: 9 }), viommu({ hwptId: 9 }), viommu({ hwptId: ioas })]).toEqual(Array(3).fill('ENOENT'));
    const plain = setup.hwpt(1, ioas) as number;
    expect([viommu({ hwptId: plain }), setup.destroy(plain)]).toEqual(['EINVAL', 'ok']);
    const id = viommu() as number;
    expect([id, setup.destroy(parent)]).toEqual([6, 'EBUSY']);
    const data = { dataType: 2, data: new Uint8Array([1]) };
    expect([setup.hwpt(1, id, data), setup.hwpt(3, id, data), setup.destroy(id)]).toEqual([7, 'EINVAL', 'EBUSY']);
    expect(
      setup.call(
        setup.fd.viommuAlloc(setup.agent, { flags: 0, type: 1, devId: setup.bind(setup.device(0x40)), hwptId: parent }),
      ),
    ).toBe('EOPNOTSUPP'); // VT-d
    expect([setup.destroy(7), setup.destroy(6)]).toEqual(['ok', 'ok']);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});

describe('VDEVICE', () => {
  it('errnos; the id of one whose device went is not used again', () => {
    const { setup, viommu, vdevice, fd, agent } = ready();
    const id = viommu() as number;
    expect([vdevice(9, 1, 0n), vdevice(id, 9, 0n), vdevice(id, 3, 0n)]).toEqual(['ENOENT', 'ENOENT', 'EINVAL']);
    expect([vdevice(id, 1, 5n), vdevice(id, 1, 6n), vdevice(id, 2, 5n), vdevice(id, 2, 6n)]).toEqual([
      7,
      'EEXIST',
      'EEXIST',
      8,
    ]);
    expect([setup.destroy(8), setup.destroy(id)]).toEqual(['ok', 'EBUSY']);
    setup.run(fd.unbind(agent, 1));
    expect([setup.destroy(7), setup.destroy(id), setup.ioas(), setup.ioas(), setup.ioas()]).toEqual([
      'ENOENT',
      'ok',
      1,
      6,
      8, // 7 is a tombstone
    ]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});

describe('VEVENTQ', () => {
  it('errnos, and what it keeps', () => {
    const { setup, viommu, veventq } = ready();
    const id = viommu() as number;
    expect([veventq(id, { flags: 1 }), veventq(id, { type: 0 }), veventq(9)]).toEqual([
      'EOPNOTSUPP',
      'EOPNOTSUPP',
      'ENOENT',
    ]);
    expect([veventq(id, { veventqDepth: 0 }), veventq(id, { veventqDepth: 2 ** 19 + 1 })]).toEqual([
      'EINVAL',
      'EINVAL',
    ]);
    const first = veventq(id) as VeventqAllocReply;
    expect([first.outVeventqId, veventq(id), (veventq(id, { type: 2 }) as VeventqAllocReply).outVeventqId]).toEqual([
      7,
      'EEXIST',
      8,
    ]);
    expect([setup.destroy(7), setup.destroy(id)]).toEqual(['EBUSY', 'EBUSY']);
    first.outVeventqFile.close();
    expect([setup.destroy(7), (veventq(id) as VeventqAllocReply).outVeventqId]).toEqual(['ok', 7]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('loses what has no room: a header says so, and the sequence goes on', () => {
    const { setup, viommu, veventq, agent } = ready();
    const queue = (veventq(viommu() as number) as VeventqAllocReply).outVeventqFile as VeventqObject;
    const event = (...bytes: number[]) => queue.report(new Uint8Array(bytes));
    const read = (count: number) =>
      setup.run(queue.read(agent, count)).map(({ flags, sequence, data }) => [flags, sequence, ...data]);
    expect([queue.poll(), read(8)]).toEqual([0, []]);
    expect(() => setup.run(queue.read(agent, 7))).toThrow('EINVAL');
    expect([event(10, 11), event(20), event(30), event(40), queue.poll()]).toEqual([true, true, false, false, 0x41]);
    expect(read(17)).toEqual([[0, 0, 10, 11]]); // 7 bytes are left: not even a header
    expect(event(50)).toBe(true); // the header at the tail gives way
    expect(read(1000)).toEqual([
      [0, 1, 20],
      [0, 4, 50],
    ]);
    event(60);
    event(70);
    event(80);
    expect(read(1000)).toEqual([
      [0, 5, 60],
      [0, 6, 70],
      [1, 7],
    ]);
    expect(queue.poll()).toBe(0);
    expect(queue).toBeInstanceOf(VeventqObject);
  });
});
