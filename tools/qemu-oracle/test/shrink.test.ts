import fc from 'fast-check';
import { expect, test } from 'vitest';
import { shrink } from '../src/shrink.ts';

/** A program fails at the element by which it holds, in order, everything that is needed. */
const neededIn = (needed: readonly number[]) => (program: readonly number[]) => {
  let found = 0;
  const end = program.findIndex((element) => {
    if (element === needed[found]) found++;
    return found === needed.length;
  });
  return Promise.resolve(end + 1);
};

test('leaves what is needed and nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.nat(1000), { minLength: 1, maxLength: 80 }),
      fc.infiniteStream(fc.boolean()),
      async (program, choices) => {
        const chosen = program.filter(() => choices.next().value === true);
        const needed = chosen.length === 0 ? program.slice(0, 1) : chosen;
        expect(await shrink({ program, neededOf: neededIn(needed), expired: () => false })).toEqual(needed);
      },
    ),
  );
});

test('gives what it has when time is over', async () => {
  const program = Array.from({ length: 1000 }, (_, index) => index);
  let tries = 0;
  const smallest = await shrink({ program, neededOf: neededIn([3, 700, 999]), expired: () => tries++ >= 8 });
  expect(smallest.length).toBeLessThan(1000);
  expect(await neededIn([3, 700, 999])(smallest)).toBe(smallest.length);
});
