import { describe } from 'vitest';
import { SecondStageTable, TableMemory } from '../src/index.ts';
import { kernelFormatLaws, kernelMapLaws } from './kernel-laws.ts';
import { programLaws } from './laws.ts';

describe.each([3, 4, 5] as const)('%i levels', (levels) => {
  programLaws(() => new SecondStageTable({ memory: new TableMemory({ pages: 64 }), levels }), 40);
  describe('format', () => kernelFormatLaws(levels));
  describe('map and unmap', () => kernelMapLaws(levels));
});
