import { createReadStream, existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Answer, Operation } from '../src/program.ts';
import { configurationText, operationText, readVectorLine } from '../src/vectors.ts';
import { runVectors } from '../src/vectors-run.ts';

/** The whole file lies in a directory beside the checkout. */
const WHOLE = join(resolve(import.meta.dirname, '../../../../shared/traces'), 'golden-qemu11-4level.jsonl.gz');
const HEAD = join(import.meta.dirname, 'fixtures', 'qemu11-4level-head.jsonl.gz');
const THREE_LEVELS = join(import.meta.dirname, 'fixtures', 'qemu7-3level.jsonl.gz');

const CONFIGURATION =
  '{"cfg":{"levels":4,"cap":"0xd2008c222f0606","ecap":"0xf00f4a","root":"0x100000","devfn":"0x20","sid":"0x20"}}';
const ABSENT = '{"dma":["0x5008","r"],"res":{"fault":1,"type":"r","addr":"0x5000"}}';

const run = (...lines: string[]) => runVectors({ name: 'test', chunks: [`${lines.join('\n')}\n`] });

test('all 16,852 answers of QEMU 11.1.3, hits and walks included', async (context) => {
  if (!existsSync(WHOLE)) context.skip('not tested: ../shared/traces/golden-qemu11-4level.jsonl.gz is not there');
  const result = await runVectors({ name: WHOLE, chunks: createReadStream(WHOLE) });
  expect(result).toEqual({ lines: 30_693, compared: 16_852, agree: 16_852, differences: [], damage: null });
});

test('the first 4,927 of them', async () => {
  const result = await runVectors({ name: HEAD, chunks: createReadStream(HEAD) });
  expect(result).toEqual({ lines: 9000, compared: 4927, agree: 4927, differences: [], damage: null });
});

test('3-level tables, a width of 39 bits, four requesters, QEMU 7.2', async () => {
  const result = await runVectors({ name: THREE_LEVELS, chunks: createReadStream(THREE_LEVELS) });
  expect(result).toMatchObject({ differences: [], damage: null });
  expect(result.compared).toBeGreaterThan(2000);
  expect(result.agree).toBe(result.compared);
});

test('a changed answer is found, in every field', async () => {
  const lines = gunzipSync(readFileSync(HEAD)).toString().trimEnd().split('\n');
  const at = lines.findIndex((line) => line.includes('"hit":true'));
  const changes: [string, string][] = [
    ['"hit":true', '"hit":false'],
    ['"gpa":"0x', '"gpa":"0x7'],
    ['"mask":"0x', '"mask":"0x7'],
    ['"slpte":"0x', '"slpte":"0x7'],
  ];
  for (const [from, to] of changes) {
    const changed = [...lines.slice(0, at), (lines[at] ?? '').replace(from, to), ...lines.slice(at + 1)];
    const result = await run(...changed);
    expect(result).toMatchObject({ compared: 4927, agree: 4926, damage: null });
    expect(result.differences.map(({ line }) => line)).toEqual([at + 1]);
  }
});

test.each([
  ['fault', ABSENT.replace('"fault":1', '"fault":2')],
  ['type', ABSENT.replace('"type":"r"', '"type":"w"')],
  ['address', ABSENT.replace('0x5000', '0x6000')],
  ['requester', ABSENT.replace('"addr"', '"sid":"0x28","addr"')],
])('a changed %s of a fault is found', async (_name, line) => {
  expect(await run(CONFIGURATION, ABSENT)).toMatchObject({ compared: 1, agree: 1 });
  expect(await run(CONFIGURATION, line)).toMatchObject({ compared: 1, agree: 0 });
});

test('root and requester are what the first line and the DMA say', async () => {
  const configuration = CONFIGURATION.replace('0x100000', '0x3000')
    .replace('"0x20"', '"0x9"')
    .replace('"0x20"', '"0x109"');
  const translated = '{"gpa":"0x40000000","mask":"0x3fffffff","hit":false,"slpte":"0x40000083"}';
  const lines = [
    ...['{"w":["0x3010","0x4001"]}', '{"w":["0x4098","0x702"]}', '{"w":["0x4090","0x5001"]}'],
    ...['{"w":["0x5000","0x6003"]}', '{"w":["0x6000","0x40000083"]}'],
    `{"dma":["0x123450","w"],"res":${translated}}`,
    '{"dma":["0x123450","w","0x108"],"res":{"fault":2,"type":"w","addr":"0x123000"}}',
  ];
  expect(await run(configuration, ...lines)).toMatchObject({ compared: 2, agree: 2, differences: [], damage: null });
});

test('a program that starts over finds nothing of the one before it', async () => {
  const root = '{"w":["0x100000","0x102001"]}';
  const read = (data: string): string => `{"m":"0x100000","res":{"data":"${data}"}}`;
  const lines = [root, read('0x102001'), ABSENT.replace('1', '2'), '{"start":true}', read('0x0'), ABSENT];
  expect(await run(CONFIGURATION, ...lines)).toMatchObject({ compared: 4, agree: 4, damage: null });
});

describe('damage', () => {
  test.each([
    ['no JSON', '{"dma"', 'expected a JSON object, got {"dma"'],
    ['no operation', '{"x":1}', 'expected an object with "w", "inv", "root", "dma", "m" or "start", got {"x":1}'],
    ['what a terminal would obey', '\u001b[2J\u0000\u009b1m', 'expected a JSON object, got ?[2J??1m'],
    ['an empty line', '', 'expected a JSON object, got an empty line'],
    ['a number for an address', '{"w":[4096,"0x0"]}', 'expected the address of "w" as a hexadecimal string'],
    [
      '65 bits',
      '{"w":["0x1000","0x10000000000000000"]}',
      'expected the value of "w" as a hexadecimal string of at most 64 bits',
    ],
    ['an unaligned store', '{"w":["0x1004","0x0"]}', 'expected the address of "w" as a multiple of 8, got 0x1004'],
    ['an access', '{"dma":["0x0","x"],"res":{}}', 'expected the access of "dma" as "r" or "w", got x'],
    ['no answer', '{"dma":["0x0","r"]}', 'expected "res" as the answer of the DMA, got nothing'],
    [
      'half an answer',
      '{"dma":["0x0","r"],"res":{"gpa":"0x0"}}',
      'expected "gpa", "mask", "hit" and "slpte", or "fault"',
    ],
    [
      'a descriptor that the unit refuses',
      '{"inv":["0x7","0x0"]}',
      'expected what the model can do: descriptor: the unit refuses 0x7',
    ],
  ])('%s: the line, what was expected, and what was compared before', async (_name, line, message) => {
    const result = await run(CONFIGURATION, ABSENT, line, ABSENT);
    expect(result).toMatchObject({ lines: line.includes('inv') ? 3 : 2, compared: 1, agree: 1, damage: { line: 3 } });
    expect(result.damage?.message).toContain(message);
  });

  test.each([
    ['no first line', ABSENT, 'expected {"cfg": ...} as the first line'],
    ['levels', CONFIGURATION.replace('4', '6'), 'expected "levels" as 3, 4 or 5, got 6'],
    ['no capabilities', CONFIGURATION.replace('"cap"', '"c"'), 'expected "cap" as a hexadecimal string'],
    ['capabilities of no unit', CONFIGURATION.replace('0xd2008c222f0606', '0x0'), 'expected what the model can do: '],
    ['little memory', CONFIGURATION.replace('"root"', '"ram":"0x1000","root"'), 'expected "ram" from 0x10000'],
    [
      'two requesters',
      CONFIGURATION.replace('"devfn":"0x20"', '"devfn":"0x28"'),
      'expected "devfn" as the low byte of "sid" 0x20',
    ],
  ])('%s in the first line', async (_name, line, message) => {
    const { damage } = await run(line, ABSENT);
    expect(damage?.line).toBe(1);
    expect(damage?.message).toContain(message);
  });

  test('a file without DMA, and an empty one', async () => {
    expect((await run(CONFIGURATION)).damage).toEqual({
      line: 2,
      message: 'expected at least one answer, got none',
    });
    expect((await runVectors({ name: 'test', chunks: [] })).damage?.line).toBe(1);
  });

  test('a gzip stream that is cut off', async () => {
    const whole = gzipSync(gunzipSync(readFileSync(HEAD)));
    const { compared, agree, damage } = await runVectors({ name: 'test', chunks: [whole.subarray(0, 40_000)] });
    expect(compared).toBeGreaterThan(1000);
    expect(agree).toBe(compared);
    expect(damage?.message).toMatch(/^the gzip stream ends too early/);
  });
});

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const sourceId = fc.integer({ min: 0, max: 0xffff });
const access = fc.constantFrom<'r' | 'w'>('r', 'w');
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), pa: word.map((pa) => pa & ~7n), value: word }),
  fc.record({ kind: fc.constant('invalidate' as const), lo: word, hi: word }),
  fc.record({ kind: fc.constant('root' as const), pa: word.map((pa) => pa & ~0xfffn) }),
  fc.record({ kind: fc.constant('dma' as const), iova: word, access, sourceId }),
  fc.record({ kind: fc.constant('read' as const), pa: word.map((pa) => pa & ~3n) }),
);
const answer: fc.Arbitrary<Answer> = fc.oneof(
  fc.record({ kind: fc.constant('translated' as const), gpa: word, mask: word, hit: fc.boolean(), slpte: word }),
  fc.record({
    kind: fc.constant('fault' as const),
    reason: fc.integer({ min: 1, max: 255 }),
    type: access,
    address: word,
    sourceId: fc.option(sourceId),
  }),
  fc.constant<Answer>({ kind: 'blocked' }),
  fc.constant<Answer>({ kind: 'passThrough' }),
  fc.record({ kind: fc.constant('data' as const), value: fc.integer({ min: 0, max: 0xffff_ffff }) }),
);

test('what is written is read back the same', () => {
  const first = readVectorLine(CONFIGURATION, 1, null);
  if (first.kind !== 'configuration') throw new Error('not a configuration');
  const { configuration } = first;
  expect(readVectorLine(configurationText(configuration), 1, null)).toEqual(first);
  fc.assert(
    fc.property(operation, answer, (made, given) => {
      const expected = {
        kind: 'operation',
        operation: made,
        answer: 'iova' in made || made.kind === 'read' ? given : null,
      };
      expect(readVectorLine(operationText(made, given, configuration), 2, configuration)).toEqual(expected);
    }),
  );
});
