import { describe, expect, test } from 'vitest';
import { IOCTL_TABLE, type IommufdVersion, ioctlCommand, StructView, UAPI } from '../src/index.ts';
import { RW, RW_FIXED, THP } from './iommufd-setup.ts';
import { ARRAY, NOWHERE, READ_ONLY_ARRAY, struct, UapiSetup } from './uapi-setup.ts';

const VA = BigInt(THP) << 12n;

describe('rules that all ioctls share', () => {
  test.each(IOCTL_TABLE)('$name: least size, longer structs, other commands', ({ nr, layout, minSize }) => {
    const setup = new UapiSetup();
    const bytes = (size: number, length = size): Uint8Array => {
      const given = new Uint8Array(length);
      new DataView(given.buffer).setUint32(0, size, true);
      return given;
    };
    expect(setup.ioctl(nr, bytes(minSize - 1, layout.size))).toBe('EINVAL');
    expect(setup.ioctl(nr, bytes(0, layout.size))).toBe('EINVAL');
    // Whether the caller asks for something that there is: what matters is that the size is no reason.
    const plain = setup.ioctl(nr, bytes(layout.size));
    expect(setup.ioctl(nr, bytes(minSize))).toBe(plain);
    expect(setup.ioctl(nr, bytes(layout.size + 24))).toBe(plain);
    const long = bytes(layout.size + 24);
    long[layout.size + 23] = 1;
    expect(setup.ioctl(nr, long)).toBe('E2BIG');
    expect(setup.ioctl(nr, bytes(layout.size, layout.size - 1))).toBe('EFAULT');
    expect(setup.ioctl(nr, new Uint8Array(3))).toBe('EFAULT');
    expect(setup.ioctl(nr, 4096)).toBe('EFAULT');
    // _IOW(';', nr, ...) and another type are other commands.
    expect(setup.raw(0x4000_0000 | ioctlCommand(nr), bytes(layout.size))).toBe(-25);
    expect(setup.raw(0x3c00 | nr, bytes(layout.size))).toBe(-25);
  });

  test('numbers beyond the table are the VFIO decoder’s, and it knows none of them', () => {
    const setup = new UapiSetup();
    for (const nr of [0, 0x63, 0x7f, 0x96, 0xa0, 0xff]) expect(setup.ioctl(nr, new Uint8Array(80))).toBe('ENOTTY');
  });

  test('6.12 has no command after FAULT_QUEUE_ALLOC', () => {
    const answer = (version: IommufdVersion): string[] =>
      IOCTL_TABLE.map(({ nr, layout }) => {
        const bytes = new Uint8Array(layout.size);
        new DataView(bytes.buffer).setUint32(0, layout.size, true);
        return new UapiSetup({ version }).ioctl(nr, bytes);
      });
    const newer = IOCTL_TABLE.map(({ since }) => since === '7.3');
    expect(answer('6.12').map((result) => result === 'ENOTTY')).toEqual(newer);
    expect(answer('7.3')).not.toContain('ENOTTY');
  });

  test('a reserved field that is not zero is EOPNOTSUPP, before anything else is looked at', () => {
    for (const { nr, layout, minSize } of IOCTL_TABLE) {
      for (const [name, { offset, bytes: width }] of Object.entries(layout.fields)) {
        if (!name.startsWith('__reserved')) continue;
        const bytes = new Uint8Array(layout.size);
        new DataView(bytes.buffer).setUint32(0, layout.size, true);
        bytes[offset + width - 1] = 0x80;
        expect([layout.name, name, new UapiSetup().ioctl(nr, bytes)]).toEqual([layout.name, name, 'EOPNOTSUPP']);
        expect(offset).toBeLessThan(Math.max(minSize, layout.size));
      }
    }
  });

  test('a short struct is filled with zeros, and gets back no more than it has', () => {
    const setup = new UapiSetup();
    const devId = setup.run(setup.fd.bind(setup.agent, setup.device()));
    const ioasId = setup.newIoas();
    const command = struct(UAPI.iommu_hwpt_alloc, { size: 24, dev_id: devId, pt_id: ioasId });
    const bytes = command.bytes.slice(0, 28).fill(0xee, 24); // what is behind its 24 bytes is the user's
    expect(setup.ioctl(0x89, bytes)).toBe('0');
    expect(new DataView(bytes.buffer).getUint32(16, true)).toBe(ioasId + 1);
    expect([...bytes.subarray(24)]).toEqual([0xee, 0xee, 0xee, 0xee]);
  });
});

describe('out-fields and arrays', () => {
  test('IOVA_RANGES says how many there are, also with EMSGSIZE', () => {
    const setup = new UapiSetup();
    const ioasId = setup.newIoas();
    const devId = setup.run(setup.fd.bind(setup.agent, setup.device()));
    setup.run(setup.fd.attach(setup.agent, devId, ioasId));
    const ask = (num_iovas: number, allowed_iovas: bigint) => {
      const command = struct(UAPI.iommu_ioas_iova_ranges, { ioas_id: ioasId, num_iovas, allowed_iovas });
      const result = setup.ioctl(0x84, command.bytes);
      const range = new StructView(UAPI.iommu_iova_range);
      setup.memory.read(ARRAY, range.bytes);
      const { number, bigint } = { number: command.number('num_iovas'), bigint: command.bigint('out_iova_alignment') };
      return { result, number, alignment: bigint, last: range.bigint('last') };
    };
    const whole = { number: 2, alignment: 0x1000n };
    expect(ask(0, 0n)).toEqual({ result: 'EMSGSIZE', ...whole, last: 0n });
    expect(ask(1, ARRAY)).toEqual({ result: 'EMSGSIZE', ...whole, last: 0xfedf_ffffn });
    expect(ask(2, ARRAY)).toEqual({ result: '0', ...whole, last: 0xfedf_ffffn });
    expect(ask(2, NOWHERE)).toMatchObject({ result: 'EFAULT', number: 2, alignment: 0n });
    expect(ask(2, READ_ONLY_ARRAY - 16n)).toMatchObject({ result: 'EFAULT', alignment: 0n });
  });

  test('ALLOW_IOVAS reads its array after the id, and as far as it is good', () => {
    const setup = new UapiSetup();
    const ioasId = setup.newIoas();
    const allow = (id: number, num_iovas: number, allowed_iovas: bigint): string =>
      setup.ioctl(0x82, struct(UAPI.iommu_ioas_allow_iovas, { ioas_id: id, num_iovas, allowed_iovas }).bytes);
    expect(allow(99, 1, NOWHERE)).toBe('ENOENT');
    expect(allow(ioasId, 1, NOWHERE)).toBe('EFAULT');
    expect(allow(ioasId, 0xffff_ffff, ARRAY)).toBe('EINVAL'); // zeros: its start is not below its last
    setup.memory.write(ARRAY, struct(UAPI.iommu_iova_range, { start: 0x10_0000n, last: 0x1f_ffffn }).bytes);
    setup.memory.write(ARRAY + 16n, struct(UAPI.iommu_iova_range, { start: 0x18_0000n, last: 0x2f_ffffn }).bytes);
    expect(allow(ioasId, 2, ARRAY)).toBe('EINVAL'); // they overlap
    expect(allow(ioasId, 1, ARRAY)).toBe('0');
    const map = struct(UAPI.iommu_ioas_map, { flags: RW, ioas_id: ioasId, user_va: VA, length: 0x1000n, iova: 5n });
    expect(setup.ioctl(0x85, map.bytes)).toBe('0');
    expect(map.bigint('iova')).toBe(0x10_0000n);
  });

  test('MAP, UNMAP and COPY write back what they chose and did, and nothing on an error', () => {
    const setup = new UapiSetup();
    const [one, two] = [setup.newIoas(), setup.newIoas()];
    const at = { flags: RW_FIXED, user_va: VA, length: 0x2000n, iova: 0x8000n };
    expect(setup.ioctl(0x85, struct(UAPI.iommu_ioas_map, { ...at, ioas_id: one }).bytes)).toBe('0');
    const again = struct(UAPI.iommu_ioas_map, { ...at, ioas_id: one });
    expect(setup.ioctl(0x85, again.bytes)).toBe('EEXIST');
    expect(again.bigint('iova')).toBe(0x8000n);
    const source = { src_ioas_id: one, src_iova: 0x8000n, length: 0x1000n };
    const copy = struct(UAPI.iommu_ioas_copy, { ...source, flags: RW, dst_ioas_id: two, dst_iova: 0x77n });
    expect(setup.ioctl(0x83, copy.bytes)).toBe('0');
    expect(copy.bigint('dst_iova')).toBe(0x1000n);
    const part = struct(UAPI.iommu_ioas_unmap, { ioas_id: one, iova: 0x8000n, length: 0x1000n });
    expect(setup.ioctl(0x86, part.bytes)).toBe('ENOENT');
    expect(part.bigint('length')).toBe(0x1000n);
    const all = struct(UAPI.iommu_ioas_unmap, { ioas_id: one, iova: 0n, length: (1n << 64n) - 1n });
    expect(setup.ioctl(0x86, all.bytes)).toBe('0');
    expect(all.bigint('length')).toBe(0x2000n);
  });

  test('GET_HW_INFO copies what fits, zeroes what is left, and says the length of the kernel’s data', () => {
    const setup = new UapiSetup();
    const dev_id = setup.run(setup.fd.bind(setup.agent, setup.device()));
    setup.memory.write(ARRAY, new Uint8Array(64).fill(0xff));
    const ask = (data_len: number, data_uptr = ARRAY) => {
      const command = struct(UAPI.iommu_hw_info, { dev_id, data_len, data_uptr });
      return { result: setup.ioctl(0x8a, command.bytes), length: command.number('data_len'), command };
    };
    expect(ask(0, NOWHERE)).toMatchObject({ result: '0', length: 24 });
    expect(ask(12)).toMatchObject({ result: '0', length: 24 });
    const data = new Uint8Array(40);
    setup.memory.read(ARRAY, data);
    expect(data.subarray(12).every((byte) => byte === 0xff)).toBe(true);
    const whole = ask(32);
    setup.memory.read(ARRAY, data);
    expect([...data.subarray(24)]).toEqual([...new Array(8).fill(0), ...new Array(8).fill(0xff)]);
    const info = new StructView(UAPI.iommu_hw_info_vtd, data);
    expect(info.bigint('cap_reg')).toBe(setup.unit.registers.read64(0x8));
    expect(whole.command.number('out_data_type')).toBe(1);
    expect(whole.command.bigint('out_capabilities')).toBe(8n); // ATS_NOT_SUPPORTED
    expect(ask(24, NOWHERE).result).toBe('EFAULT');
    expect(ask(0xffff_ffff).result).toBe('EFAULT');
  });

  test('HWPT_ALLOC takes data with a type, and a type with data; OPTION reads and writes', () => {
    const setup = new UapiSetup();
    const [dev_id, pt_id] = [setup.run(setup.fd.bind(setup.agent, setup.device())), setup.newIoas()];
    const alloc = (fields: Partial<Record<'data_type' | 'data_len' | 'flags', number>>): string =>
      setup.ioctl(0x89, struct(UAPI.iommu_hwpt_alloc, { dev_id, pt_id, data_uptr: ARRAY, ...fields }).bytes);
    expect(alloc({ data_type: 1 })).toBe('EINVAL');
    expect(alloc({ data_len: 24 })).toBe('EINVAL');
    expect(alloc({ data_type: 1, data_len: 24 })).toBe('EOPNOTSUPP');
    expect(alloc({ flags: 0x80 })).toBe('EOPNOTSUPP');
    expect(alloc({})).toBe('0');
    const option = struct(UAPI.iommu_option, { option_id: 1, op: 1, object_id: pt_id });
    expect(setup.ioctl(0x87, option.bytes)).toBe('0');
    expect(option.bigint('val64')).toBe(1n);
  });

  test('HWPT_INVALIDATE says how many entries were done, also when it fails', () => {
    const setup = new UapiSetup();
    const [dev_id, pt_id] = [setup.run(setup.fd.bind(setup.agent, setup.device())), setup.newIoas()];
    const hwpt = struct(UAPI.iommu_hwpt_alloc, { dev_id, pt_id });
    expect(setup.ioctl(0x89, hwpt.bytes)).toBe('0');
    const invalidate = (fields: Partial<Record<keyof typeof UAPI.iommu_hwpt_invalidate.fields, number | bigint>>) => {
      const command = struct(UAPI.iommu_hwpt_invalidate, { hwpt_id: hwpt.number('out_hwpt_id'), ...fields });
      return [setup.ioctl(0x8d, command.bytes), command.number('entry_num')];
    };
    expect(invalidate({ data_uptr: 0n, entry_len: 24, entry_num: 2 })).toEqual(['EINVAL', 0]);
    expect(invalidate({ data_uptr: ARRAY, entry_len: 4097, entry_num: 2 })).toEqual(['EINVAL', 0]);
    expect(invalidate({ data_uptr: ARRAY, entry_len: 24, entry_num: 2 })).toEqual(['EINVAL', 0]); // a paging HWPT
    expect(invalidate({ hwpt_id: 99, data_uptr: ARRAY, entry_len: 24, entry_num: 2 })).toEqual(['ENOENT', 0]);
  });

  test('HWPT_INVALIDATE of a first stage: entries up to one that is refused, or that is not there, are done', () => {
    const setup = new UapiSetup();
    const dev_id = setup.run(setup.fd.bind(setup.agent, setup.device(0x28, { nestedObjects: true })));
    const alloc = (fields: Partial<Record<keyof typeof UAPI.iommu_hwpt_alloc.fields, number | bigint>>): number => {
      const command = struct(UAPI.iommu_hwpt_alloc, { dev_id, ...fields });
      expect(setup.ioctl(0x89, command.bytes)).toBe('0');
      return command.number('out_hwpt_id');
    };
    const parent = alloc({ pt_id: setup.newIoas(), flags: 1 });
    setup.memory.write(ARRAY, struct(UAPI.iommu_hwpt_vtd_s1, { pgtbl_addr: 0x1000n, addr_width: 48 }).bytes);
    const data = { data_type: 1, data_len: UAPI.iommu_hwpt_vtd_s1.size, data_uptr: ARRAY };
    const hwpt_id = alloc({ pt_id: parent, ...data });
    const entry = UAPI.iommu_hwpt_vtd_s1_invalidate;
    const write = (address: bigint, addr: bigint): boolean =>
      setup.memory.write(address, struct(entry, { addr, npages: 1n }).bytes);
    const invalidate = (data_uptr: bigint, entry_num: number): [string, number] => {
      const command = struct(UAPI.iommu_hwpt_invalidate, { hwpt_id, data_uptr, entry_len: entry.size, entry_num });
      command.set('data_type', 0);
      return [setup.ioctl(0x8d, command.bytes), command.number('entry_num')];
    };
    for (let i = 0; i < 4; i++) write(ARRAY + BigInt(i * entry.size), i === 3 ? 0x800n : 0x1000n);
    expect(invalidate(ARRAY, 3)).toEqual(['0', 3]);
    expect(invalidate(ARRAY, 4)).toEqual(['EINVAL', 3]); // its address is not aligned
    const end = READ_ONLY_ARRAY + 0x1000n - BigInt(2 * entry.size);
    expect(invalidate(end, 3)).toEqual(['EFAULT', 2]); // zeros are an entry
    expect(invalidate(NOWHERE, 3)).toEqual(['EFAULT', 0]);
    expect(invalidate(ARRAY, 0)).toEqual(['0', 0]);
  });

  test('MAP_FILE takes an open descriptor; EBADF comes after the id', () => {
    const setup = new UapiSetup();
    const ioas_id = setup.newIoas();
    const fd = setup.files.open({ name: 'memfd' });
    const map = (fields: Partial<Record<keyof typeof UAPI.iommu_ioas_map_file.fields, number | bigint>>): string =>
      setup.ioctl(
        0x8f,
        struct(UAPI.iommu_ioas_map_file, { flags: RW_FIXED, ioas_id, fd, length: 0x1000n, iova: 0x1000n, ...fields })
          .bytes,
      );
    expect(map({ ioas_id: 99, fd: 7 })).toBe('ENOENT');
    expect(map({ fd: 7 })).toBe('EBADF');
    expect(map({ fd: -1 })).toBe('EBADF');
    expect(map({})).toBe('0');
    expect(map({})).toBe('EEXIST');
  });
});

describe('dirty bitmaps through user memory', () => {
  test('are read, OR-ed and written back', () => {
    const setup = new UapiSetup({ mode: 'scalable' });
    const dev_id = setup.run(setup.fd.bind(setup.agent, setup.device()));
    const pt_id = setup.newIoas();
    const hwpt = struct(UAPI.iommu_hwpt_alloc, { dev_id, pt_id, flags: 2 });
    expect(setup.ioctl(0x89, hwpt.bytes)).toBe('0');
    const hwpt_id = hwpt.number('out_hwpt_id');
    const map = struct(UAPI.iommu_ioas_map, {
      flags: RW_FIXED,
      ioas_id: pt_id,
      user_va: VA,
      length: 0x8000n,
      iova: 0n,
    });
    expect(setup.ioctl(0x85, map.bytes)).toBe('0');
    setup.run(setup.fd.attach(setup.agent, dev_id, hwpt_id));
    const tracking = struct(UAPI.iommu_hwpt_set_dirty_tracking, { hwpt_id, flags: 1 });
    expect(setup.ioctl(0x8b, tracking.bytes)).toBe('0');
    expect(setup.unit.dma({ sourceId: 0x28, iovaHi: 0, iovaLo: 0x3000, access: 1 })).toBeGreaterThan(0);
    const get = (data: bigint, flags = 0): string => {
      const range = { iova: 0n, length: 0x8000n, page_size: 0x1000n };
      return setup.ioctl(0x8c, struct(UAPI.iommu_hwpt_get_dirty_bitmap, { hwpt_id, flags, ...range, data }).bytes);
    };
    expect(get(NOWHERE, 1)).toBe('EFAULT');
    expect(get(READ_ONLY_ARRAY, 1)).toBe('EFAULT');
    setup.memory.write(ARRAY, new Uint8Array([0x80, 0xff]));
    expect(get(ARRAY)).toBe('0');
    const bitmap = new Uint8Array(2);
    setup.memory.read(ARRAY, bitmap);
    expect([...bitmap]).toEqual([0x88, 0xff]); // bit 7 was there; bit 3 is the page written to
  });
});

describe('descriptors', () => {
  test('a fault queue is a file: ESPIPE, EINVAL, poll, and EBUSY until it is closed', () => {
    const setup = new UapiSetup();
    const command = struct(UAPI.iommu_fault_alloc, {});
    expect(setup.ioctl(0x8e, command.bytes)).toBe('0');
    const [id, fd] = [command.number('out_fault_id'), command.number('out_fault_fd')];
    const { files, agent } = setup;
    const read = (bytes: number): number => setup.run(files.read(agent, fd, new Uint8Array(bytes)));
    expect([read(40), read(0), read(39)]).toEqual([0, 0, -29]);
    const write = (bytes: number[]): number => setup.run(files.write(agent, fd, new Uint8Array(bytes)));
    expect(write([1, 0, 0])).toBe(-29);
    expect(write([1, 0, 0, 0, 0, 0, 0, 0])).toBe(-22); // no such cookie
    expect(files.poll(fd)).toBe(0x4);
    const destroy = (): string => setup.ioctl(0x80, struct(UAPI.iommu_destroy, { id }).bytes);
    expect(destroy()).toBe('EBUSY');
    expect(files.close(fd)).toBe(0);
    expect([files.close(fd), files.poll(fd), read(40), write([])]).toEqual([-9, -9, -9, -9]);
    expect(destroy()).toBe('0');
  });

  test('page groups go to user space and their answers come back, record by record', () => {
    const setup = new UapiSetup();
    const command = struct(UAPI.iommu_fault_alloc, {});
    setup.ioctl(0x8e, command.bytes);
    const fd = command.number('out_fault_fd');
    const fault = setup.fd.context.get(command.number('out_fault_id'), 'FAULT');
    const answers: number[] = [];
    const record = (addr: bigint) => ({ addr, perm: 2, grpid: 7, pasid: null });
    fault.report({
      devId: 5,
      handle: setup,
      faults: [record(0x1000n), record(0x2000n)],
      *respond(agent, code) {
        yield agent.spends('answer', 0);
        answers.push(code);
      },
    });
    const { files, agent } = setup;
    expect(files.poll(fd)).toBe(0x4 | 0x1 | 0x40);
    expect(setup.run(files.read(agent, fd, new Uint8Array(40)))).toBe(-22); // the group has two
    const bytes = new Uint8Array(120).fill(0xff);
    expect(setup.run(files.read(agent, fd, bytes))).toBe(80);
    const [first, second] = [0, 40].map((at) => new StructView(UAPI.iommu_hwpt_pgfault, bytes.subarray(at, at + 40)));
    expect([first?.bigint('addr'), second?.bigint('addr')]).toEqual([0x1000n, 0x2000n]);
    expect([first?.number('flags'), second?.number('flags')]).toEqual([0, 2]); // LAST_PAGE
    expect([first?.number('dev_id'), first?.number('grpid'), first?.number('perm')]).toEqual([5, 7, 2]);
    expect(bytes[80]).toBe(0xff);
    const cookie = second?.number('cookie') ?? 0;
    const response = struct(UAPI.iommu_hwpt_page_response, { cookie, code: 1 });
    expect(setup.run(files.write(agent, fd, response.bytes))).toBe(8);
    expect(answers).toEqual([1]);
    expect(setup.run(files.write(agent, fd, response.bytes))).toBe(-22);
  });

  test('EMFILE leaves no object behind', () => {
    const setup = new UapiSetup();
    while (setup.files.hasRoom) setup.files.open({ name: 'some file' });
    const before = setup.newIoas();
    expect(setup.ioctl(0x8e, struct(UAPI.iommu_fault_alloc, {}).bytes)).toBe('EMFILE');
    expect(setup.newIoas()).toBe(before + 1);
  });

  test('other files: read and write are EINVAL, poll is always ready, the lowest number is taken', () => {
    const setup = new UapiSetup();
    const { files, agent } = setup;
    expect([files.open({ name: 'a' }), files.open({ name: 'b' }), files.open({ name: 'c' })]).toEqual([0, 1, 2]);
    files.close(1);
    expect(files.open({ name: 'd' })).toBe(1);
    expect(setup.run(files.read(agent, 1, new Uint8Array(1)))).toBe(-22);
    expect(setup.run(files.write(agent, 1, new Uint8Array(1)))).toBe(-22);
    expect(files.poll(1)).toBe(0x145);
  });

  test('mmap of /dev/iommu', () => {
    const { file } = new UapiSetup();
    const page = { length: 0x1000n, shared: true, exec: false };
    expect(file.mmap(page)).toBe(-6);
    expect(file.mmap({ ...page, exec: true })).toBe(-1);
    expect(file.mmap({ ...page, exec: true, shared: false })).toBe(-22);
    expect(file.mmap({ ...page, length: 0x800n })).toBe(-22);
  });
});
