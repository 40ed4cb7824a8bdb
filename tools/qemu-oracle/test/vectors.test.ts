import { createReadStream, existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { runVectors } from '../src/vectors-run.ts';

/** The whole file lies in a directory beside the checkout. */
const WHOLE = join(resolve(import.meta.dirname, '../../../../shared/traces'), 'golden-qemu11-4level.jsonl.gz');

test('all 16,852 answers of QEMU 11.1.3, hits and walks included', async (context) => {
  if (!existsSync(WHOLE)) context.skip('not tested: ../shared/traces/golden-qemu11-4level.jsonl.gz is not there');
  const result = await runVectors({ name: WHOLE, chunks: createReadStream(WHOLE) });
  expect(result).toEqual({ lines: 30_693, compared: 16_852, agree: 16_852, differences: [], damage: null });
});
