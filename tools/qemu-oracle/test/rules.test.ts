import { createReadStream, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ALL_RULES, isRuleId, RULES, type RuleId } from '../src/rules.ts';
import { runVectors } from '../src/vectors-run.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');
const idOf = (file: string): string => file.replace(/\.jsonl(\.gz)?$/, '');
const recorded = readdirSync(join(FIXTURES, 'rules'));
const avoided = readdirSync(join(FIXTURES, 'avoided'));

const run = (path: string, rules: ReadonlySet<RuleId> = ALL_RULES) =>
  runVectors({ name: path, chunks: createReadStream(path) }, { rules });
const without = (id: string) => new Set([...ALL_RULES].filter((rule) => rule !== id));

test.each(recorded)('%s: agrees with its rule, and differs without', async (file) => {
  const path = join(FIXTURES, 'rules', file);
  const { compared, agree, damage } = await run(path);
  expect([damage, agree]).toEqual([null, compared]);
  expect(isRuleId(idOf(file))).toBe(true);
  const off = await run(path, without(idOf(file)));
  expect(off.agree).toBeLessThan(off.compared);
});

test("partial-invalidation-drops-large: QEMU 11's answers differ without it", async () => {
  const off = await run(join(FIXTURES, 'qemu11-4level-head.jsonl.gz'), without('partial-invalidation-drops-large'));
  expect(off.agree).toBeLessThan(off.compared);
});

test('every rule that can be switched off has a program', () => {
  const shown = [...recorded.map(idOf), 'partial-invalidation-drops-large'];
  expect([...ALL_RULES].sort()).toEqual(shown.sort());
});

test.each(avoided)('%s: the model answers otherwise', async (file) => {
  expect(RULES.find(({ id }) => id === idOf(file))?.treatment).toBe('avoided');
  const { compared, agree, damage } = await run(join(FIXTURES, 'avoided', file));
  expect([damage, agree]).toEqual([null, 0]);
  expect(compared).toBeGreaterThan(0);
});

test('no two rules have one name, and each says all', () => {
  expect(new Set(RULES.map(({ id }) => id)).size).toBe(RULES.length);
  for (const rule of RULES) for (const text of Object.values(rule)) expect(text).not.toBe('');
});
