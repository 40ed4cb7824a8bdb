import { STRATEGIES, statelessStrategy, type TakeAway } from '@faultline/iommufd-core';
import { describe, expect, it, vi } from 'vitest';
import { PROTOCOLS, protocolNamed, type SplitProtocol, splitProtocol } from '../src/index.ts';
import { outcome, quick } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

const explored = (name: string, protocol: SplitProtocol) => outcome(quick(splitProtocol(name, name, protocol)));

/** `cut` as it should be, for comparison with each defect below. */
const withDefect = (takeAway: TakeAway): SplitProtocol => ({
  strategy: statelessStrategy('defect', true, takeAway),
  hitless: true,
});

describe('verify', () => {
  it('cut holds in every order of the configurations with few', () => {
    const result = outcome(quick(protocolNamed('cut')));
    expect(result.counterexample).toBe(null);
    expect(result.verdict).toBe('holds');
    expect(result.configurations).toHaveLength(50);
    expect(result.executions).toBeGreaterThan(3000);
  });

  it('whole-leaf holds where innocents may fault', () => {
    expect(outcome(quick(protocolNamed('whole-leaf'))).verdict).toBe('holds');
  });

  it('naive walks to an error, and the schedule says where', () => {
    const result = outcome(quick(protocolNamed('naive')));
    expect(result.verdict).toBe('violated');
    expect(result.counterexample?.invariant).toBe('I3');
    expect(result.counterexample?.message).toContain('which is guest memory, as an entry');
    expect(result.counterexample?.schedule.at(-1)?.step).toBe('read what it takes for an entry');
    expect(result.executions).toBe(1);
  });

  it('whole-leaf is not hitless, and the adversary shows who suffers', () => {
    const result = explored('whole-leaf', { strategy: STRATEGIES['whole-leaf'], hitless: true });
    expect(result.counterexample?.invariant).toBe('I4');
    expect(result.counterexample?.configuration).toContain('neighbour');
  });

  it('refuses a protocol that does not exist', () => {
    expect(() => protocolNamed('magic')).toThrow(
      `protocol: "magic" is not one of ${PROTOCOLS.map((p) => p.name).join(', ')}`,
    );
  });
});

describe('a defect in the cut is found', () => {
  it('no invalidation: the device reaches the old frame from its cache (I1)', () => {
    const result = explored(
      'no flush',
      withDefect(function* (agent, domain, page, pages) {
        const gather = domain.gather();
        yield* domain.cut(agent, page, pages, gather);
        yield* domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
        return { fellBack: false, unsplit: null };
      }),
    );
    expect(result.counterexample?.invariant).toBe('I1');
  });

  it('D9, only the page is invalidated: the cached large translation survives (I1)', () => {
    const result = explored(
      'D9',
      withDefect(function* (agent, domain, page, pages) {
        const lost = domain.gather();
        yield* domain.cut(agent, page, pages, lost);
        yield* domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, lost);
        const gather = domain.gather();
        gather.add(page, pages);
        yield* domain.flush(agent, gather);
        return { fellBack: false, unsplit: null };
      }),
    );
    expect(result.counterexample?.invariant).toBe('I1');
    expect(result.counterexample?.configuration).toContain('cached');
  });

  it('invalidation before the entry changes: the cache fills again from the old leaf (I1)', () => {
    const result = explored(
      'flush first',
      withDefect(function* (agent, domain, page, pages) {
        const gather = domain.gather();
        yield* domain.cut(agent, page, pages, gather);
        yield* domain.flush(agent, gather);
        yield* domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, domain.gather());
        return { fellBack: false, unsplit: null };
      }),
    );
    expect(result.counterexample?.invariant).toBe('I1');
  });

  it('no cut where the range ends inside the leaf: the page stays mapped (I8)', () => {
    const result = explored(
      'no cut',
      withDefect(function* (agent, domain, page, pages) {
        const gather = domain.gather();
        yield* domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
        yield* domain.flush(agent, gather);
        return { fellBack: false, unsplit: null };
      }),
    );
    expect(result.counterexample?.invariant).toBe('I8');
  });
});
