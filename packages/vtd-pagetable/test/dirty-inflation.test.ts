import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { type CutOptions, InvalidationGather, SecondStageTable, TableMemory } from '../src/index.ts';
import { StaleDevice } from './stale-device.ts';

const G = 262_144;
type Policy = NonNullable<CutOptions['accessedDirty']> | 'read before cut';

/** Pages that the host is told to save: for the time before the cut, and by the dirty read after the second round of writes. */
interface Told {
  readonly before: number;
  readonly after: number;
}

/** One leaf, of which `written` pages spread over it are written; a page is cut out; the same pages are written again. */
function measure(leafPages: number, written: number, policy: Policy): Told {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), accessedDirty: true });
  table.map({ page: G, frame: 0, pages: leafPages, rights: { read: true, write: true } });
  const device = new StaleDevice(table);
  const write = () => {
    for (let nth = 0; nth < written; nth++) device.access(G + Math.floor((nth * leafPages) / written), true);
  };
  const finish = (gather: InvalidationGather): number => {
    device.flush(gather);
    const dirty = table.settle(gather);
    device.save(dirty);
    return dirty.reduce((sum, { pages }) => sum + pages, 0);
  };
  const read = (): number => {
    const gather = new InvalidationGather();
    const ranges: { page: number; pages: number }[] = [];
    const range = { iova: BigInt(G) << 12n, length: BigInt(leafPages) << 12n, clear: true };
    table.readAndClearDirty(range, gather, (iova, length) =>
      ranges.push({ page: Number(iova >> 12n), pages: Number(length >> 12n) }),
    );
    finish(gather);
    device.save(ranges);
    return ranges.reduce((sum, { pages }) => sum + pages, 0);
  };
  write();
  let before = policy === 'read before cut' ? read() : 0;
  const gather = new InvalidationGather();
  const accessedDirty = policy === 'read before cut' ? 'inherit' : policy;
  table.cut(G + Math.floor(leafPages / 3), 1, gather, { accessedDirty });
  before += finish(gather);
  write();
  const after = read();
  expect(device.unsaved.size).toBe(0);
  return { before, after };
}

const number = (value: number): string => value.toLocaleString('en-US');

it('the table of dirty inflation in the README is what is measured (D7)', () => {
  const rows = [
    [512, '2M'],
    [G, '1G'],
  ].flatMap(([pages, size]) =>
    [0, 1, 16, 256].map((written) => {
      const told = (['inherit', 'clear-after-harvest', 'read before cut'] as const).map((policy) => {
        const { before, after } = measure(pages as number, written, policy);
        return `${number(before)} + ${number(after)}`;
      });
      return `| ${[size, number(written), ...told].join(' | ')} |`;
    }),
  );
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const cells = (line: string) =>
    line
      .split('|')
      .map((cell) => cell.trim())
      .filter((cell) => cell !== '')
      .join(' | ');
  const documented = readme
    .split('\n')
    .filter((line) => /^\| (2M|1G) +\|/.test(line))
    .map(cells);
  expect(documented).toEqual(rows.map(cells));
});
