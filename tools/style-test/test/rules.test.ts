import { describe, expect, test } from 'vitest';
import { determinismViolations } from '../src/determinism.ts';
import { fileNameViolations } from '../src/file-names.ts';
import { indexViolations, languageViolations, lengthViolations } from '../src/language.ts';
import { layerViolations } from '../src/layers.ts';
import {
  applicationDependencyViolations,
  dependencyViolations,
  type Manifest,
  manifestViolations,
  versionViolations,
} from '../src/manifest.ts';
import { contentViolations } from '../src/package-contents.ts';
import { parseSource } from '../src/source.ts';

// Every rule against samples that must fail and samples that must pass: a rule that cannot fail checks nothing.

const source = (text: string, path = 'src/entry.ts') => parseSource(path, text);

describe('layers', () => {
  test.each([
    ['a dependency of an upper layer', 'iotlb', ['@faultline/machine'], [], ''],
    ['a dev dependency of an upper layer', 'iotlb', [], ['@faultline/vtd-remapping'], ''],
    ['an import of an upper layer', 'sim', [], [], `import { walk } from '@faultline/vtd-pagetable';`],
    ['a type import of an upper layer', 'sim', [], [], `import type { Walk } from '@faultline/vtd-pagetable';`],
    ['a re-export of an upper layer', 'sim', [], [], `export { walk } from '@faultline/vtd-pagetable';`],
    ['an import() of an upper layer', 'sim', [], [], `const m = await import('@faultline/machine');`],
    ['an import() type of an upper layer', 'sim', [], [], `let m: import('@faultline/machine').Machine;`],
    ['an import of a sub-path of an upper layer', 'sim', [], [], `import '@faultline/machine/testing';`],
    ['an application', 'trace-formats', ['@faultline/vm-sim'], [], ''],
    ['iommufd that knows the hardware', 'iommufd-core', [], [], `import { cut } from '@faultline/vtd-pagetable';`],
    ['a guest that knows its host', 'vm-guest', ['@faultline/iommufd-core'], [], ''],
    ['a package of no layer', 'extras', [], [], ''],
  ])('refuse %s', (_, name, dependencies, devDependencies, text) => {
    expect(layerViolations(name, dependencies, devDependencies, [source(text)])).toHaveLength(1);
  });

  test('accept lower layers, and in tests what iommufd itself must not know', () => {
    const inTest = source(`import { Mm } from '@faultline/host-mm';`, 'test/fault.test.ts');
    const inSource = source(`import { pageSize } from '@faultline/address';\nimport { x } from './area.ts';`);
    const dev = ['@faultline/host-mm'];
    expect(layerViolations('iommufd-core', ['@faultline/address', 'sorted-btree'], dev, [inTest, inSource])).toEqual(
      [],
    );
  });
});

describe('file names', () => {
  test.each(['src/utils.ts', 'src/helpers.ts', 'src/common.ts', 'src/types.ts', 'src/misc.ts', 'src/string-utils.ts'])(
    'refuse %s',
    (path) => expect(fileNameViolations([path])).toHaveLength(1),
  );
  test.each(['src/PageTable.ts', 'src/page_table.ts', 'src/utils/parse.ts', 'src/-entry.ts', 'test/walk.spec.ts'])(
    'refuse %s',
    (path) => expect(fileNameViolations([path])).toHaveLength(1),
  );
  test('accept kebab-case nouns', () => {
    const names = [
      'src/entry.ts',
      'src/invalidation-queue.ts',
      'test/cut.slow.test.ts',
      'test/entry.test-d.ts',
      'tsup.config.ts',
    ];
    expect(fileNameViolations(names)).toEqual([]);
  });
});

describe('determinism', () => {
  test.each([
    'const t = Date.now();',
    'const t = new Date();',
    'const t = new Date(0);',
    'const t = Date();',
    'const t = performance.now();',
    'const r = Math.random();',
    'const f = Math.random;',
    'setTimeout(() => {}, 1);',
    'setInterval(() => {}, 1);',
    'setImmediate(() => {});',
    'const later = setTimeout;',
    'const e = process.env;',
    'process.exit(1);',
    `console.log('x');`,
    'globalThis.process.exit(1);',
    'globalThis.console.log(1);',
    'crypto.randomUUID();',
    `const b = Buffer.from('x');`,
    `import { readFileSync } from 'node:fs';`,
    `import { readFileSync } from 'fs';`,
    `import { readFile } from 'fs/promises';`,
    `export { join } from 'node:path';`,
    `const fs = require('fs');`,
    `const fs = await import('node:fs');`,
  ])('refuse %s', (text) => expect(determinismViolations(source(text))).not.toEqual([]));

  test.each([
    '// Date.now() and Math.random() are banned, and so is console.log',
    `const s = 'console.log(Date.now())';`,
    'const t = clock.now();',
    'const m = Math.floor(1.5);',
    'function kill(process: Process): void { process.exit(); }',
    'interface Task { process: number }',
    'const task = { process: 1, console: 2 }; task.process;',
    `import { Clock } from '@faultline/sim';`,
  ])('accept %s', (text) => expect(determinismViolations(source(text))).toEqual([]));
});

describe('language', () => {
  test.each([
    'let x: any;',
    'const x = y as any;',
    'function f(x: Array<any>): void {}',
    'enum Color { Red }',
    'const enum Color { Red }',
    '// @ts-ignore\nf();',
    '// @ts-nocheck\nf();',
    '/* @ts-ignore */ f();',
    'const x = find()!;',
    'const x = this.owner!.name;',
  ])('refuse %s', (text) => expect(languageViolations(source(text))).toHaveLength(1));

  test.each(['// any enum', 'const x: unknown = 1;', 'const x = table[3]!;', `const s = 'any';`])('accept %s', (text) =>
    expect(languageViolations(source(text))).toEqual([]),
  );

  test('refuse a file of more than 450 lines', () => {
    expect(lengthViolations(source('x;\n'.repeat(451)))).toHaveLength(1);
    expect(lengthViolations(source('x;\n'.repeat(450)))).toEqual([]);
  });

  test.each([
    `export * from './entry.ts';`,
    `export * as entry from './entry.ts';`,
    `export { a } from './a.ts';\nexport * from './entry.ts';`,
    'export default 1;',
    'export {};',
    '',
  ])('refuse the index %j', (text) => expect(indexViolations(source(text, 'src/index.ts'))).toHaveLength(1));

  test('accept an index with names', () => {
    expect(indexViolations(source(`export { a, type B } from './a.ts';\nexport type { C } from './c.ts';`))).toEqual(
      [],
    );
  });
});

describe('manifest', () => {
  const target = { import: { types: './dist/index.d.ts', default: './dist/index.js' }, require: './dist/index.cjs' };
  const good: Manifest = {
    name: '@faultline/iotlb',
    license: 'MIT',
    type: 'module',
    sideEffects: false,
    description: 'A description that is long enough.',
    exports: { '.': { '@faultline/source': './src/index.ts', ...target }, './package.json': './package.json' },
    publishConfig: { access: 'public', exports: { '.': target, './package.json': './package.json' } },
  };
  test('accepts a complete one', () => expect(manifestViolations(good)).toEqual([]));
  test.each<[string, Partial<Manifest>]>([
    ['another license', { license: 'ISC' }],
    ['CommonJS by default', { type: 'commonjs' }],
    ['side effects', { sideEffects: true }],
    ['no description', { description: '' }],
    ['no public access', { publishConfig: { exports: { '.': target, './package.json': './package.json' } } }],
    ['a published source condition', { publishConfig: { access: 'public', exports: good.exports } }],
  ])('refuses %s', (_, change) => expect(manifestViolations({ ...good, ...change })).toHaveLength(1));
  test('refuses an export map that does not start with the source', () => {
    const exports = { '.': { ...target, '@faultline/source': './src/index.ts' }, './package.json': './package.json' };
    expect(manifestViolations({ ...good, exports })).not.toEqual([]);
  });
});

describe('dependencies', () => {
  const manifest: Manifest = { name: '@faultline/iotlb', dependencies: { flatqueue: '3.1.0' } };
  const user = source(`import Queue from 'flatqueue';`);
  test('accept what is declared and imported', () => {
    const inTest = source(`import { test } from 'vitest';\nimport { readFileSync } from 'node:fs';`, 'test/a.test.ts');
    expect(dependencyViolations(manifest, [user, inTest], ['vitest'])).toEqual([]);
  });
  test('refuse an undeclared import in src', () => {
    const text = `import { test } from 'vitest';`;
    expect(dependencyViolations(manifest, [user, source(text)], ['vitest'])).toHaveLength(1);
  });
  test('refuse an undeclared import in a test', () => {
    const inTest = source(`import fc from 'fast-check';`, 'test/a.test.ts');
    expect(dependencyViolations(manifest, [user, inTest], ['vitest'])).toHaveLength(1);
  });
  test('refuse a dependency that nothing imports', () => {
    expect(dependencyViolations(manifest, [], [])).toHaveLength(1);
  });

  const workspace = new Map<string, Manifest>([
    ['@faultline/sim', { name: '@faultline/sim', dependencies: { flatqueue: '3.1.0' } }],
    ['@faultline/machine', { name: '@faultline/machine', dependencies: { '@faultline/sim': 'workspace:*' } }],
  ]);
  const app: Manifest = {
    name: '@faultline/vm-sim',
    dependencies: { yaml: '2.9.1', flatqueue: '3.1.0' },
    devDependencies: { '@faultline/machine': 'workspace:*' },
  };
  const main = source(`import { run } from '@faultline/machine';\nimport { parse } from 'yaml';`);
  const check = (change: Partial<Manifest>, text = main) =>
    applicationDependencyViolations({ ...app, ...change }, [text], workspace, []);
  test('accept an application that declares what its bundle needs', () => expect(check({})).toEqual([]));
  test('refuse an application that lacks a library of a bundled package, or has another version', () => {
    expect(check({ dependencies: { yaml: '2.9.1' } })).toHaveLength(1);
    expect(check({ dependencies: { yaml: '2.9.1', flatqueue: '3.0.0' } })).toHaveLength(1);
  });
  test('refuse an application that does not declare an import, or declares too much', () => {
    expect(check({}, source(`import 'zod';\nimport 'yaml';`))).toHaveLength(1);
    expect(check({ dependencies: { ...app.dependencies, zod: '4.6.7' } })).toHaveLength(1);
    expect(check({ dependencies: { ...app.dependencies, '@faultline/sim': 'workspace:*' } })).not.toEqual([]);
  });

  test('refuse two versions, and ranges', () => {
    expect(versionViolations([app, { name: 'x', dependencies: { yaml: '2.9.0' } }])).toHaveLength(1);
    expect(versionViolations([{ name: 'x', dependencies: { yaml: '^2.9.1' } }])).toHaveLength(1);
    expect(versionViolations([app])).toEqual([]);
  });
});

describe('contents', () => {
  const whole = {
    name: '@faultline/iotlb',
    files: ['LICENSE', 'README.md', 'src/index.ts', 'test/iotlb.test.ts'],
    changesets: [`---\n'@faultline/iotlb': minor\n---\n\nFirst.\n`],
    isLibrary: true,
  };
  test('accept a whole package', () => expect(contentViolations(whole)).toEqual([]));
  test.each(whole.files)('refuse one without %s', (missing) => {
    expect(contentViolations({ ...whole, files: whole.files.filter((file) => file !== missing) })).toHaveLength(1);
  });
  test('refuse one that no changeset announces, unless it has a change log', () => {
    expect(contentViolations({ ...whole, changesets: [`---\n'@faultline/iotlb-x': minor\n---\n`] })).toHaveLength(1);
    expect(contentViolations({ ...whole, changesets: [], files: [...whole.files, 'CHANGELOG.md'] })).toEqual([]);
  });
});
