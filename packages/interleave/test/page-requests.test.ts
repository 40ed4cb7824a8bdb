import { describe, expect, it, vi } from 'vitest';
import { protocolNamed } from '../src/index.ts';
import { pageRequestProtocol } from '../src/worlds/page-request-protocol.ts';
import { mapsLate } from '../src/zoo/page-request-defects.ts';
import { outcome, quick } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

describe('prq', () => {
  it('holds in every order of the configurations with few', () => {
    const result = outcome(quick(protocolNamed('prq')));
    expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
    expect(result.configurations).toHaveLength(7);
    expect(result.executions).toBeGreaterThan(4000);
  });

  it('would notice an answer to a page that is not there', () => {
    const result = outcome(pageRequestProtocol({ faultPath: mapsLate }));
    expect(result.counterexample?.invariant).toBe('I13');
    expect(result.counterexample?.message).toMatch(/^device \d was told that page 0x\d is there, and it is not$/);
  });
});
