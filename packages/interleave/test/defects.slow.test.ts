import { expect, it } from 'vitest';
import { type VerifyResult, verify } from '../src/index.ts';

function outcome(search: Generator<unknown, VerifyResult>): VerifyResult {
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

it('cut holds in every order of every configuration', () => {
  const result = outcome(verify('cut'));
  expect(result.counterexample).toBe(null);
  expect(result.verdict).toBe('holds');
  expect(result.configurations).toHaveLength(34);
  expect(result.executions).toBeGreaterThan(3000);
});

it('whole-leaf holds where innocents may fault', () => {
  expect(outcome(verify('whole-leaf')).verdict).toBe('holds');
});
