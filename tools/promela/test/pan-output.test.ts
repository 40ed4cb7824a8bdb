import { describe, expect, it } from 'vitest';
import { parsePan } from '../src/pan-output.ts';

/** What pan 6.5.2 prints, shortened. */
const holds = `
(Spin Version 6.5.2 -- 6 December 2019)
	+ Partial Order Reduction

Full statespace search for:
	never claim         	- (none specified)
	assertion violations	+
	cycle checks       	- (disabled by -DSAFETY)
	invalid end states	+

State-vector 196 byte, depth reached 178, errors: 0
    39884 states, stored
    16762 states, matched
    56646 transitions (= stored+matched)
   109683 atomic steps
hash conflicts:      1302 (resolved)

Stats on memory usage (in Megabytes):
    8.672	equivalent memory usage for states (stored*(State-vector + overhead))

unreached in proctype device
	device.pml:177, state 129, "assert((broken!=1))"
	(1 of 187 states)

pan: elapsed time 0.04 seconds
`;
const broken = (error: string): string =>
  `pan:1: ${error} (at depth 106)\npan: wrote cut.pml.trail\n${holds.replace('errors: 0', 'errors: 1')}`;

describe('parsePan', () => {
  it('reads the counts of a search that found nothing, whatever it says about statements that were not reached', () => {
    expect(parsePan(holds)).toEqual({
      verdict: 'holds',
      invariant: null,
      states: 39884,
      transitions: 56646,
      depth: 178,
      reason: null,
    });
  });

  it('names the invariant of a failed assertion, depth first and breadth first', () => {
    expect(parsePan(broken('assertion violated (broken!=4)'))).toMatchObject({ verdict: 'violated', invariant: 'I4' });
    expect(parsePan(broken('assertion violated ((broken!=12))'))).toMatchObject({ invariant: 'I12' });
  });

  it('takes a process that waits for ever for a broken I13', () => {
    expect(parsePan(broken('invalid end state'))).toMatchObject({ verdict: 'violated', invariant: 'I13' });
  });

  it('reads counts with an exponent', () => {
    const many = holds.replace('39884 states, stored', '4.2171342e+08 states, stored');
    expect(parsePan(many).states).toBe(421_713_420);
  });

  it('does not take a search that was cut short for one that found nothing', () => {
    const full = `pan: reached -DMEMLIM bound\n\t- 1.04858e+08 bytes limit\n${holds}`;
    expect(parsePan(full)).toMatchObject({ verdict: 'interrupted', reason: 'out of memory' });
    const deep = `error: max search depth too small\n${holds}`;
    expect(parsePan(deep)).toMatchObject({ verdict: 'interrupted', reason: 'the search is deeper than its stack' });
    expect(parsePan(`Warning: Search not completed\n${holds}`).verdict).toBe('interrupted');
  });

  it('prefers a violation to a limit: what was found is true', () => {
    expect(parsePan(`error: max search depth too small\n${broken('assertion violated (broken!=1)')}`)).toMatchObject({
      verdict: 'violated',
      invariant: 'I1',
    });
  });

  it('refuses errors that no invariant of the models makes', () => {
    expect(() => parsePan(broken('assertion violated (x<3)'))).toThrow('not an invariant of the models');
    expect(() => parsePan(holds.replace('errors: 0', 'errors: 1'))).toThrow('counts errors and names none');
    expect(() => parsePan('Segmentation fault')).toThrow('printed no summary:\nSegmentation fault');
  });
});
