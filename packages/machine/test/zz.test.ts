import { it } from 'vitest';
import { randomScenario, runStormMachine } from '../src/index.ts';

it('x', () => {
  const from = Number(process.env['FROM'] ?? 1),
    n = Number(process.env['N'] ?? 100);
  const kinds = new Map<string, string[]>();
  const t0 = performance.now();
  let slow = 0,
    slowSeed = 0;
  const sums: Record<string, number> = {};
  const verdicts = new Set<string>();
  for (let seed = from; seed < from + n; seed++) {
    const t = performance.now();
    try {
      const o = runStormMachine(seed, randomScenario(seed));
      for (const [k, v] of Object.entries(o.figures)) sums[k] = (sums[k] ?? 0) + v;
      verdicts.add(o.signature);
      if (o.failure) {
        const k = o.failure.kind + ' ' + o.failure.message.replace(/0x[0-9a-f]+|\d+/g, 'N').slice(0, 140);
        kinds.set(k, [...(kinds.get(k) ?? []), `${seed}(${o.scenario.strategy})`]);
      }
    } catch (e) {
      const k = 'INVALID ' + String(e).slice(0, 160);
      kinds.set(k, [...(kinds.get(k) ?? []), String(seed)]);
    }
    const d = performance.now() - t;
    if (d > slow) {
      slow = d;
      slowSeed = seed;
    }
  }
  console.log(
    'total',
    Math.round(performance.now() - t0),
    'ms; slowest',
    Math.round(slow),
    slowSeed,
    JSON.stringify(sums),
    verdicts.size,
  );
  for (const [k, v] of [...kinds].sort((a, b) => b[1].length - a[1].length))
    console.log(v.length, k, v.slice(0, 6).join(' '));
}, 900000);
