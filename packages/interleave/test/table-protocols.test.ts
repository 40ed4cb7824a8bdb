import { expect, it } from 'vitest';
import { protocolNamed, verify } from '../src/index.ts';

it.each(['map', 'unmap', 'collapse', 'dirty-harvest', 'detach'])('%s holds in every order', (name) => {
  const search = verify(protocolNamed(name));
  let next = search.next();
  while (!next.done) next = search.next();
  expect(next.value.counterexample).toBe(null);
  expect(next.value.verdict).toBe('holds');
});
