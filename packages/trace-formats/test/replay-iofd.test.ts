/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type IofdReplayResult, replayIofd, TraceFormatError } from '../src/index.ts';

const log = (version: string): string =>
  readFileSync(join(import.meta.dirname, 'vectors', `iofd-${version}.log`), 'utf8');
const replay = (text: string | Uint8Array): Promise<IofdReplayResult> => replayIofd({ name: 'log', chunks: [text] });

/** Changes the first line that matches. @returns the log and the line's number */
function changed(version: string, pattern: RegExp, change: (line: string) => string): { text: string; line: number } {
  const lines = log(version).split('\n');
  const at = lines.findIndex((line) => pattern.test(line));
  const line = lines[at] ?? '';
  expect(change(line)).not.toBe(line);
  return { text: lines.with(at, change(line)).join('\n'), line: at + 1 };
}

describe('what Linux did, again on the model', () => {
  test('7.3.4: every call, to the errno, the out-field, the leaf', async () => {
    const result = await replay(log('7.3.4'));
    expect(result.differences).toEqual([]);
    expect(result).toMatchObject({
      kernel: '7.3',
      calls: 145,
      agree: 145,
      differ: 0,
      lines: { lines: 344, unknown: 0 },
    });
    expect(result.compared).toEqual({
      results: 145,
      outFields: 131,
      mapEvents: 66,
      unmapEvents: 38,
      attachEvents: 2,
      eventTotals: 10,
      tableRows: 33,
      leafCounts: 25,
      pagemaps: 4,
    });
    expect(result.notCompared).toEqual({ foreignEvents: 6, eventTotals: 1, callsWithoutEvents: 6 });
  });

  test('6.12.95: by the other side of the switch', async () => {
    const result = await replay(gzipSync(log('6.12.95')));
    expect(result.differences).toEqual([]);
    expect(result).toMatchObject({
      kernel: '6.12',
      calls: 144,
      agree: 144,
      differ: 0,
      lines: { lines: 322, unknown: 0 },
    });
  });

  test('the two kernels are told apart by more than a name: what one did is wrong for the other', async () => {
    const unmarked = log('7.3.4').replaceAll(/(PML4E|PDPE|PDE)=([0-9a-f]+)403/g, '$1=$2003');
    const result = await replay(unmarked);
    expect(result.kernel).toBe('6.12');
    expect(result.differences.map(({ call, what }) => `${call}: ${what}`)).toEqual([
      'GET_HW_INFO: caps',
      'MAP W-only map: table entries',
      'HWPT_ALLOC FAULT_ID_VALID on ioas (no PASID/PRI device): result',
      'HWPT_ALLOC FAULT_ID_VALID on ioas (no PASID/PRI device): out_hwpt',
      'HWPT_ALLOC FAULT_ID_VALID on ioas (no PASID/PRI device): map events',
      'HWPT_ALLOC FAULT_ID_VALID on ioas (no PASID/PRI device): event totals',
      'DESTROY hwpt with fault queue: result',
      'DESTROY hwpt with fault queue: unmap events',
      'DESTROY hwpt with fault queue: event totals',
    ]);
  });
});

describe('what is wrong in a log is reported at its line', () => {
  test.each<[what: string, pattern: RegExp, change: (line: string) => string, got: string]>([
    ['result', /^UNMAP wraps/, (line) => line.replace('EOVERFLOW', 'EINVAL'), 'EOVERFLOW'],
    ['iova_out', /^MAP auto 64K/, (line) => line.replace('iova_out=10000', 'iova_out=20000'), '10000'],
    ['length_out', /^UNMAP ALL 0/, (line) => line.replace('1829000', '1828000'), '1829000'],
    ['pt_id_out', /^VFIO ATTACH ioas2/, (line) => line.replace('out=5', 'out=6'), '5'],
    ['fd', /^FAULT_QUEUE_ALLOC/, (line) => line.replace('fd=5', 'fd=6'), '5'],
    [
      'ranges',
      /^IOVA_RANGES after attach/,
      (line) => line.replace('fedfffff', 'feefffff'),
      '[0-fedfffff] [fef00000-ffffffffffff]',
    ],
    ['leaves', /pt leaves in \[42100000/, (line) => line.replace('4K=256', '4K=768'), '4K=256 2M=1 1G=0'],
    ['table entries', /IOVA_PFN=0x21000 /, (line) => line.replace(/PTE=(\S+)1$/, 'PTE=$13'), '..003 ..003 ..003 ..001'],
    [
      'map events',
      /ftrace map: .* - 0x0000000042400000/,
      (line) => line.replace('42400000', '42300000').replace('3145728', '2097152'),
      '42100000+300000',
    ],
    [
      'unmap events',
      /ftrace unmap: IOMMU: iova=0x0000000400000000/,
      (line) => line.replace('440000000', '420000000').replaceAll('1073741824', '536870912'),
      '400000000+40000000',
    ],
    ['event totals', /total map=512/, (line) => line.replace('512', '511'), 'map=512 unmap=13'],
    ['attach events', /ftraceIOMMU: device/, () => '', '1'],
    ['pagemap', /pagemap unpinned/, (line) => line.replace('swapped=512', 'swapped=511'), 'present=0 swapped=512'],
    ['resident', /MADV_PAGEOUT on pinned/, (line) => line.replace('512/512', '0/512'), '512/512'],
    ['edu copied', /^edu copied/, (line) => line.replace('11', '12'), '1122334455667788'],
  ])('%s of %s', async (what, pattern, change, got) => {
    const { text, line } = changed('7.3.4', pattern, change);
    const result = await replay(text);
    expect(result).toMatchObject({ differ: 1, agree: 144 });
    // Without its line, the attachment is missed at the call.
    const at = what === 'attach events' ? line - 1 : line;
    expect(result.differences).toEqual([expect.objectContaining({ line: at, what, got })]);
  });

  test('the unit is made as GET_HW_INFO has it, so what it cannot do shows: leaves of 1G without SSLPS bit 1', async () => {
    const { text } = changed('7.3.4', /^GET_HW_INFO/, (line) => line.replace('cap=d2008c', 'cap=d20084'));
    const { differences } = await replay(text);
    expect(new Set(differences.map(({ what }) => what))).toEqual(new Set(['leaves', 'table entries']));
    expect(differences[0]).toMatchObject({ expected: '..003 ..083 0 0', call: 'MAP hugetlb 1G, iova 1G aligned' });
  });

  test('a result that is wrong everywhere is found everywhere, and changes nothing else', async () => {
    const lines = log('7.3.4').split('\n');
    const wrong = lines.map((line) =>
      /^\s/.test(line)
        ? line
        : line.replace(/ -> (0|E[A-Z0-9]+)/, (_, result) => ` -> ${result === '0' ? 'EIO' : '0'}`),
    );
    const result = await replay(wrong.join('\n'));
    const results = result.differences.filter(({ what }) => what === 'result');
    const expected = wrong.flatMap((line, at) => (line === lines[at] ? [] : [at + 1]));
    expect(results.map(({ line }) => line)).toEqual(expected);
    expect(expected).toHaveLength(141);
    expect(result.differences.filter(({ what }) => what !== 'result')).toEqual([]);
  });

  test('a call that is not known is a difference; a damaged line is counted', async () => {
    const lines = log('7.3.4').split('\n');
    const text = lines.toSpliced(9, 0, 'COPY it somehow -> 0', 'FROB the ioas -> 0', 'no call at all').join('\n');
    const result = await replay(text);
    expect(result).toMatchObject({ calls: 147, agree: 145, differ: 2, lines: { unknown: 1 } });
    expect(result.lines.firstUnknown).toEqual([{ file: 'log', line: 12, text: 'no call at all' }]);
    expect(result.differences).toEqual([
      { line: 10, call: 'COPY it somehow', what: 'call', expected: 'a call that is known', got: 'not understood' },
      { line: 11, call: 'FROB the ioas', what: 'call', expected: 'a call that is known', got: 'not understood' },
    ]);
  });

  test.each([
    ['', 'EMPTY_INPUT'],
    ['# tracer: nop\n', 'UNKNOWN_FORMAT'],
    ['hello\n', 'UNKNOWN_FORMAT'],
  ])('%j is no such log', async (text, code) => {
    const error = await replay(text).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(TraceFormatError);
    expect(error).toMatchObject({ code });
  });
});

test('calls left out, repeated, in another order and with other numbers: a result all the same', async () => {
  const top = log('7.3.4')
    .trimEnd()
    .split('\n')
    .filter((line) => !/hugetlb 1G/.test(line)); // slow, and like 2M
  expect(top.length).toBeGreaterThan(250);
  const numbers = fc.constantFrom('0', '7ff', '1000', '1ff000', '200000', 'fffffffffffff000', 'ffffffffffffffff');
  const edit = fc.option(fc.tuple(fc.constantFrom('va%2M', 'len', 'iova', 'fl'), numbers), { freq: 6 });
  const line = fc.tuple(fc.nat(top.length - 1), edit).map(([at, change]) => {
    const text = top[at] ?? '';
    return change === null ? text : text.replace(new RegExp(`\\b${change[0]}=[0-9a-f]+`), `${change[0]}=${change[1]}`);
  });
  await fc.assert(
    fc.asyncProperty(fc.array(line, { minLength: 20, maxLength: 90 }), async (lines) => {
      const text = ['open iommu=3 vfio cdev=4 errno=0', ...lines].join('\n');
      const { calls, agree, differ, differences } = await replay(text);
      expect(agree + differ).toBe(calls);
      expect(differences.every((each) => each.line > 1 && each.line <= lines.length + 1)).toBe(true);
    }),
    { numRuns: 40 },
  );
}, 60_000);

describe('other logs of the same program', () => {
  test('other descriptors, ids, addresses and order', async () => {
    const result = await replay(`open iommu=5 vfio cdev=7 errno=0
IOAS_ALLOC -> 0 id=1
IOAS_ALLOC #2 -> 0 id=2
FAULT_QUEUE_ALLOC -> 0 id=3 fd=8
VFIO ATTACH before BIND -> EINVAL
MAP hugetlb 2M va%2M=0 len=400000 iova=77000000 fl=7 -> 0 iova_out=77000000
MAP 4K-backed in ioas2 va%2M=3000 len=5000 iova=88000000 fl=5 -> 0 iova_out=88000000
VFIO BIND -> 0 devid=4
VFIO ATTACH ioas2 -> 0 pt_id_out=5
      ftrace map: IOMMU: iova=0x0000000088000000 - 0x0000000088002000 paddr=0x0000000140fc4000 size=8192
      ftrace map: IOMMU: iova=0x0000000088002000 - 0x0000000088005000 paddr=0x0000000140000000 size=12288
      ftraceIOMMU: device=0000:00:05.0
      pt leaves in [0,ffffffffffff]: 4K=5 2M=0 1G=0
      pt IOVA_PFN=0x88000 PML4E=141abd403 PDPE=141ae4403 PDE=141ae5403 PTE=140fc4001
VFIO ATTACH ioas (replace) -> 0 pt_id_out=6
      ftraceIOMMU: device=0000:00:05.0
      ftrace map: IOMMU: iova=0x0000000077000000 - 0x0000000077400000 paddr=0x0000000150000000 size=4194304
      ftrace unmap: IOMMU: iova=0x0000000088000000 - 0x0000000088005000 size=20480 unmapped_size=20480
      pt leaves in [0,ffffffffffff]: 4K=0 2M=2 1G=0
DESTROY ioas2 -> 0
DESTROY ioas -> EBUSY
UNMAP the rest iova=77000000 len=400000 -> 0 length_out=400000
      ftrace unmap: IOMMU: iova=0x0000000077000000 - 0x0000000077400000 size=4194304 unmapped_size=4194304
VFIO DETACH -> 0
DESTROY ioas -> 0
`);
    expect(result.differences).toEqual([]);
    expect(result).toMatchObject({ kernel: '7.3', calls: 14, agree: 14, lines: { unknown: 0 } });
  });

  test('a division of events where frames are contiguous is not forgiven', async () => {
    const result = await replay(`VFIO BIND -> 0 devid=1
IOAS_ALLOC -> 0 id=2
VFIO ATTACH ioas -> 0 pt_id_out=3
      ftraceIOMMU: device=0000:00:05.0
MAP THP 2M va%2M=0 len=200000 iova=40000000 fl=7 -> 0 iova_out=40000000
      ftrace map: IOMMU: iova=0x0000000040000000 - 0x0000000040100000 paddr=0x0000000140000000 size=1048576
      ftrace map: IOMMU: iova=0x0000000040100000 - 0x0000000040200000 paddr=0x0000000140100000 size=1048576
`);
    expect(result.differences).toEqual([
      {
        line: 6,
        call: 'MAP THP 2M',
        what: 'map events',
        expected: '40000000+100000 40100000+100000',
        got: '40000000+200000',
      },
    ]);
  });
});
