import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CompilerMissing, compilerVersion, Native } from '../src/native.ts';
import { BENCHMARKS } from '../src/suite.ts';

let missing: string | undefined;
try {
  compilerVersion();
} catch (error) {
  if (!(error instanceof CompilerMissing)) throw error;
  missing = error.message;
}

describe.skipIf(missing !== undefined)(missing ?? 'the C side', () => {
  let native: Native;
  beforeAll(() => {
    native = Native.start();
  });
  afterAll(() => native.stop());

  // Twice: what the first round leaves in caches and tables is part of what the second computes. Not the same number, so
  // that a batch that is not full comes up too.
  test.each(BENCHMARKS)('$name: computes what the TypeScript computes', async ({ name, operations, run }) => {
    const few = Math.max(1, Math.floor(operations / 20));
    for (const count of [few, few + 1]) {
      const here = run(count);
      const there = await native.run(name, count);
      expect(here.checksum).toBe(there.checksum);
      expect(here.ns).toBeGreaterThan(0);
      expect(there.ns).toBeGreaterThan(0);
    }
  });

  test('computes something that depends on the work', async () => {
    const checksums = new Set<number>();
    for (const { name } of BENCHMARKS) checksums.add((await native.run(name, 3)).checksum);
    checksums.add((await native.run('walk to 4K', 4)).checksum);
    // A map and an unmap of the same leaves end in the same table.
    expect(checksums.size).toBe(BENCHMARKS.length + 1 - 2);
  });

  test('ends at a name it does not know, and says so', async () => {
    const other = Native.start();
    await expect(other.run('no such thing', 1)).rejects.toThrow('no such thing: the C side ended');
    await other.stop();
  });
});
