import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DEFECT_MODELS, PROTOCOL_MODELS, switchOf } from '../src/catalogue.ts';
import { WITHOUT_MODEL } from '../src/comparison.ts';

const MODELS = join(import.meta.dirname, '..', 'models');
const files = readdirSync(MODELS).filter((name) => name.endsWith('.pml'));
const text = readdirSync(MODELS, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.pml'))
  .map((name) => readFileSync(join(MODELS, name), 'utf8'))
  .join('\n');
/** Names that a condition of the preprocessor, or the code, looks at. */
const used = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(text.replaceAll(/\/\*[\s\S]*?\*\//g, ''));
const asked = new Set([...text.matchAll(/(?:#ifdef |#ifndef |defined\()(\w+)/g)].map(([, name = '']) => name));

describe('the catalogue', () => {
  it('names every model, and every model it names is there', () => {
    expect(files.sort()).toEqual(PROTOCOL_MODELS.map(({ name }) => `${name}.pml`).sort());
  });

  it('has a model for every protocol that interleave explores, but for two that are made of others', () => {
    // cut+collapse is cut and collapse; shared-ept is cut, with the CPU as one more who faults.
    expect(WITHOUT_MODEL).toEqual(['cut+collapse', 'shared-ept']);
  });

  it('defines nothing that no model looks at', () => {
    const configured = PROTOCOL_MODELS.flatMap(({ configurations }) => configurations).concat(
      DEFECT_MODELS.map(({ id, defines }) => ({ name: id, defines })),
    );
    for (const { name, defines } of configured)
      for (const define of defines)
        expect({ name, define, used: used(define.replace(/=.*/, '')) }).toEqual({ name, define, used: true });
  });

  it('has a switch in the models for every defect, and no defect in the models that it does not name', () => {
    for (const { id } of DEFECT_MODELS) expect([id, asked.has(switchOf(id))]).toEqual([id, true]);
    const configurations = new Set(
      [...PROTOCOL_MODELS.flatMap((model) => model.configurations), ...DEFECT_MODELS].flatMap(({ defines }) =>
        defines.map((define) => define.replace(/=.*/, '')),
      ),
    );
    const known = new Set([...configurations, ...DEFECT_MODELS.map(({ id }) => switchOf(id)), ...SET_BY_MODELS]);
    expect([...asked].filter((name) => !known.has(name))).toEqual([]);
  });

  it('names things once', () => {
    const ids = [...DEFECT_MODELS.map(({ id }) => id), ...PROTOCOL_MODELS.map(({ name }) => name)];
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^(D\d|[a-z0-9]+(-[a-z0-9]+)*)$/);
  });

  it('says of every model what it is and what it leaves out', () => {
    for (const name of files) {
      const head = readFileSync(join(MODELS, name), 'utf8').split('*/')[0] ?? '';
      expect(head).toMatch(new RegExp(`^/\\*\\n \\* ${name.replace('.pml', '')}: `));
      expect(head).toMatch(/[Bb]ounds/);
    }
  });
});

/** What models, not configurations, define. */
const SET_BY_MODELS = [
  'AT_THE_END',
  'CONTEXT',
  'HITLESS',
  'MAY_FAULT',
  'ONE_LEVEL_AT_A_TIME',
  'ON_WRITE',
  'PRI',
  'PROCESSES',
  'TABLES_LEFT',
  'TARGET',
];
