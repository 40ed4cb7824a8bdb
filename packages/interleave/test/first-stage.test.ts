import { FS_PRESENT, FS_USER, FS_WRITE } from '@faultline/vtd-pagetable';
import { expect, it } from 'vitest';
import { firstStageProtocol } from '../src/worlds/first-stage-protocol.ts';
import { outcome } from './outcome.ts';

it('a first-stage split as Linux would write its entry holds in every order', () => {
  const result = outcome(firstStageProtocol());
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
  expect(result.configurations).toHaveLength(4);
});

it('without A alone it holds where hardware snoops, and nowhere else', () => {
  const { counterexample, configurations } = outcome(firstStageProtocol(FS_PRESENT | FS_WRITE | FS_USER));
  expect(configurations[0]).toMatchObject({ name: '2M->4K, coherent', verdict: 'holds' });
  expect(counterexample?.configuration).toBe('2M->4K, not coherent');
  expect(counterexample?.message).toContain('(0x90)');
});
