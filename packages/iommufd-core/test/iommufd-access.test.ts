import { describe, expect, it } from 'vitest';
import type { AccessObject } from '../src/index.ts';
import { FakeDevice } from './fake-device.ts';
import { IommufdSetup, NOTHING_LEFT, READ_ONLY, SMALL } from './iommufd-setup.ts';

/** An IOAS as 1 and an access that pins; `letsGo` says whether it gives its pins back when asked. */
function ready(options: { letsGo?: boolean; needsPinPages?: boolean } = {}) {
  const { letsGo = true, needsPinPages = true } = options;
  const setup = new IommufdSetup();
  const { fd, agent } = setup;
  const ioas = setup.ioas();
  let access: AccessObject | null = null;
  const asked: bigint[] = [];
  access = setup.run(
    fd.accessCreate(agent, {
      needsPinPages,
      *unmap(who, iova, length) {
        asked.push(iova);
        yield who.spends('asked to unmap', 0);
        if (letsGo && access) yield* access.unpinPages(who, iova, length);
      },
    }),
  );
  const pin = (iova: bigint, length: bigint, write = false) => {
    const pages = setup.call((access as AccessObject).pinPages(agent, iova, length, write));
    return typeof pages === 'string' ? pages : pages.map(({ pfn }) => pfn);
  };
  return { setup, fd, agent, ioas, access, pin, asked };
}

describe('an access', () => {
  it('pins what an IOAS maps, with no domain, and once with one', () => {
    const { setup, fd, agent, ioas, access, pin } = ready();
    expect(pin(0n, 4096n)).toBe('ENOENT');
    setup.run(fd.accessAttach(agent, access, ioas));
    expect(setup.ranges(ioas)).toBe('align=1000 [0-ffffffffffffffff]');
    setup.map(ioas, 0, 4, { userPage: SMALL });
    setup.map(ioas, 0x4000, 4, { userPage: SMALL + 100 });
    expect(setup.mm.accountedPinBytes).toBe(0);
    const frames = pin(0x3000n, 0x2000n);
    expect(frames).toEqual([setup.mm.lookup(SMALL + 3), setup.mm.lookup(SMALL + 100)]);
    expect(setup.mm.accountedPinBytes).toBe(0x2000);
    setup.attach(setup.bind(new FakeDevice(setup.device())), ioas);
    expect(setup.mm.accountedPinBytes).toBe(0x8000);
    setup.run(access.unpinPages(agent, 0x3000n, 0x2000n));
    expect([setup.mm.accountedPinBytes, access.pins]).toEqual([0x8000, 0]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('keeps the frame it pinned when a domain comes after the CPU has another', () => {
    const { setup, fd, agent, ioas, access, pin } = ready();
    setup.run(fd.accessAttach(agent, access, ioas));
    setup.map(ioas, 0, 4, { userPage: SMALL });
    const [frame] = pin(0n, 4096n) as number[];
    setup.run(setup.mm.madviseDontNeed(agent, SMALL, 4));
    setup.run(setup.mm.cpuAccess(agent, SMALL, { write: true, tagLo: 1, tagHi: 1 }));
    const device = setup.device();
    setup.attach(setup.bind(device), ioas);
    expect([device.domain?.frameAt(0), setup.mm.lookup(SMALL) === frame]).toEqual([frame, false]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('errnos', () => {
    const { setup, fd, agent, ioas, access, pin } = ready();
    setup.run(fd.accessAttach(agent, access, ioas));
    setup.map(ioas, 0, 2, { userPage: SMALL });
    setup.map(ioas, 0x2000, 1, { userPage: READ_ONLY, flags: 5 });
    setup.map(ioas, 0x3000, 1, { userPage: READ_ONLY + 1 }); // nothing there
    expect([pin(0n, 0n), pin((1n << 64n) - 1n, 2n), pin(0n, 0x800n), pin(0x8000n, 4096n)]).toEqual([
      'EINVAL',
      'EOVERFLOW',
      'EINVAL',
      'ENOENT',
    ]);
    expect([pin(0x2000n, 4096n, true), pin(0x1000n, 0x3000n), pin(0x2000n, 4096n)]).toEqual([
      'EPERM',
      'EFAULT',
      [setup.mm.lookup(READ_ONLY)],
    ]);
    expect(setup.mm.accountedPinBytes).toBe(0x1000);
    expect(setup.call(fd.accessAttach(agent, access, ioas))).toBe('EINVAL');
    expect(setup.call(fd.accessAttach(agent, access, 99))).toBe('ENOENT');
    expect(() => setup.run(fd.accessCreate(agent, { needsPinPages: true }))).toThrow('EINVAL');
    expect([setup.destroy(access.id), setup.destroy(ioas)]).toEqual(['EBUSY', 'EBUSY']);
    setup.run(fd.accessDestroy(agent, access));
    expect([setup.mm.accountedPinBytes, setup.destroy(ioas)]).toEqual([0, 'ok']);
  });

  it('is asked for its pins by an unmap; one that does not let go makes it EDEADLOCK', () => {
    const kind = ready();
    kind.setup.run(kind.fd.accessAttach(kind.agent, kind.access, kind.ioas));
    kind.setup.map(kind.ioas, 0, 4);
    kind.pin(0n, 4096n);
    expect([kind.setup.unmap(kind.ioas, 0, 0x4000), kind.asked, kind.setup.mm.accountedPinBytes]).toEqual([
      '4000',
      [0n],
      0,
    ]);
    const stubborn = ready({ letsGo: false });
    stubborn.setup.run(stubborn.fd.accessAttach(stubborn.agent, stubborn.access, stubborn.ioas));
    stubborn.setup.map(stubborn.ioas, 0, 4);
    stubborn.pin(0n, 4096n);
    expect(stubborn.setup.unmap(stubborn.ioas, 0, 0x4000)).toBe('EDEADLOCK');
    expect([stubborn.asked.length, stubborn.pin(0n, 4096n)]).toEqual([101, 'EINVAL']);
    stubborn.setup.run(stubborn.access.unpinPages(stubborn.agent, 0n, 4096n));
    expect(stubborn.setup.unmap(stubborn.ioas, 0, 0x4000)).toBe('4000');
  });

  it('reads and writes bytes without pinning for longer', () => {
    const { setup, fd, agent, ioas, access } = ready({ needsPinPages: false });
    setup.run(fd.accessAttach(agent, access, ioas));
    expect(setup.ranges(ioas)).toContain('align=1 ');
    setup.map(ioas, 0, 2, { userPage: SMALL });
    setup.map(ioas, 0x2000, 1, { userPage: READ_ONLY, flags: 5 });
    const touched: [number, number][] = [];
    const readWrite = (iova: bigint, length: bigint, write: boolean) =>
      setup.call(access.readWrite(agent, { iova, length, write }, (pfn, page) => touched.push([pfn, page]))) ?? 'ok';
    expect(readWrite(0xff0n, 0x20n, true)).toBe('ok');
    expect(touched).toEqual([
      [setup.mm.lookup(SMALL), 0],
      [setup.mm.lookup(SMALL + 1), 1],
    ]);
    expect([readWrite(0x2000n, 1n, true), readWrite(0x2000n, 1n, false), readWrite(0x3000n, 1n, false)]).toEqual([
      'EPERM',
      'ok',
      'ENOENT',
    ]);
    expect([setup.mm.accountedPinBytes, setup.unmap(ioas, 0, (1n << 64n) - 1n)]).toEqual([0, '3000']);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});
