import { expect, test } from 'vitest';
import { parseTrail } from '../src/trail.ts';

const sources = new Map([
  [
    '/m/cut.pml',
    [
      'short ram[32];',
      'proctype host() {',
      '  byte page, level;',
      '#ifdef D4',
      '  skip;',
      '#endif',
      '  :: cpu[WORD(table)] == e -> cpu[WORD(table)] = POINTER(child)',
      '  queue ! WAIT, 0, 0, submitter',
      '  HOLDS(1, !gone);',
      '  never = 1',
    ],
  ],
]);
const line = (process: string, row: number, statement: string): string =>
  `${`  7:\tproc  ${process}`} /m/cut.pml:${row} (state 3)\t[${statement}]`;

test('a trail is shown by what is shared, in the words of the model', () => {
  const trail = [
    line('1 (:init::1)', 9, 'ram[0] = 3'),
    line('2 (host:1)', 3, 'level = 3'),
    line('2 (host:1)', 3, '(1)'),
    line('2 (host:1)', 7, '((ram[((table*2)+((page>>(level-1))&1))]==e))'),
    // Spin does not count the lines that the preprocessor has left out.
    line('2 (host:1)', 4, 'ram[((table*2)+((page>>(level-1))&1))] = (((child<<6)|1)|2)'),
    line('3 (device:1)', 3, 'page = 0'),
    line('4 (device:1)', 3, 'page = 1'),
    line('2 (host:1)', 8, 'queue!4,0,0,0'),
    line('4 (device:1)', 9, 'broken = 1'),
    line('4 (device:1)', 9, 'assert((broken!=1))'),
    line('2 (host:1)', 10, 'never = 1'),
    'spin: trail ends after 9 steps',
    '#processes: 3',
  ].join('\n');
  expect(parseTrail(trail, sources)).toEqual([
    { process: 'host', place: 'cut.pml:7', text: 'cpu[WORD(table)] == e -> cpu[WORD(table)] = POINTER(child)' },
    { process: 'device 3', place: 'cut.pml:3', text: 'page = 0' },
    { process: 'device 4', place: 'cut.pml:3', text: 'page = 1' },
    { process: 'host', place: 'cut.pml:8', text: 'queue ! WAIT, 0, 0, submitter' },
    { process: 'device 4', place: 'cut.pml:9', text: 'HOLDS(1, !gone);' },
  ]);
});

test('a statement that is not found in the source is shown as spin prints it', () => {
  expect(parseTrail(line('2 (host:1)', 3, 'iotlb[device].valid = 0'), sources)).toEqual([
    { process: 'host', place: 'cut.pml:3', text: 'iotlb[device].valid = 0' },
  ]);
});
