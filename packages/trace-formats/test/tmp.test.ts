import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'vitest';
import { replayIofd } from '../src/index.ts';
test('x', async () => {
  for (const v of ['7.3.4','6.12.95']) {
    const t0 = performance.now();
    const r = await replayIofd({ name: v, chunks: [readFileSync(join(import.meta.dirname,'vectors','iofd-'+v+'.log'),'utf8')] });
    console.log(performance.now()-t0, JSON.stringify({...r, differences: undefined}, null, 0));
    for (const d of r.differences) console.log(`${d.line}: ${d.call}: ${d.what}\n   exp ${d.expected}\n   got ${d.got}`);
  }
}, 60000);
