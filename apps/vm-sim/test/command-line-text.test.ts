import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { quoted, runCommandLine } from '../src/command-line-text.ts';

describe('quoted', () => {
  it.each(["it's", 'a b', '$HOME', '`x`', '*', 'dma.latencyNs.p99 < 500us', '', '"', '\\', '~', '!x', 'a\nb', 'é'])(
    '%j is read back by a shell',
    (word) => {
      const line = `printf %s ${quoted(word)}`;
      expect(execFileSync('/bin/sh', ['-c', line], { encoding: 'utf8' })).toBe(word);
    },
  );

  it('leaves plain words alone', () => {
    expect(quoted('vm.memory=2G')).toBe('vm.memory=2G');
  });
});

describe('runCommandLine', () => {
  it('has all that decides the run', () => {
    const words = {
      scenario: 'my file.yaml',
      seed: -3,
      set: ['vm.memory=2G'],
      failOn: ['dma.faulted > 3'],
      output: 'out',
      json: true,
    };
    expect(runCommandLine('npm start --silent --', words)).toBe(
      "npm start --silent -- run 'my file.yaml' --set vm.memory=2G --fail-on 'dma.faulted > 3' --seed -3 --output out --json",
    );
  });
});
