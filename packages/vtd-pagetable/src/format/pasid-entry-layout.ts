import type { StructureCapabilities } from '../structure-capabilities.ts';
import {
  at,
  type BitField,
  conditional,
  type Layout,
  layout,
  namedValues,
  perCapabilities,
  used,
  yesNo,
} from './bit-field.ts';
import { addressWidthMeaning, domainIdField, faultProcessingField, presentField } from './shared-field.ts';

const MEMORY_TYPES = ['UC', 'WC', '', '', 'WT', 'WP', 'WB', 'UC-'];

/** The eight types of PAT, PA0 first. */
const patMeaning = (value: bigint): string =>
  Array.from({ length: 8 }, (_, index) => MEMORY_TYPES[Number((value >> BigInt(index * 4)) & 15n)] || 'reserved').join(
    ' ',
  );

const flag = (bit: number, name: string, title: string, key: string, meaning: (value: bigint) => string) => ({
  name,
  title,
  high: bit,
  low: bit,
  key,
  meaning,
});

/** Quadword 0: translation type and second stage. */
const secondStageFields = (unit: StructureCapabilities): BitField[] => [
  conditional(unit.secondStage, 'ECAP.SSTS=0', {
    name: 'SSPTPTR',
    title: 'second-stage page table pointer',
    high: unit.hostAddressWidth - 1,
    low: 12,
    key: 'secondStagePfn',
    meaning: at('table'),
  }),
  conditional(
    unit.secondStage && unit.secondStageAccessedDirty,
    'ECAP.SSTS=0 or SSADS=0',
    flag(9, 'SSADE', 'second-stage A and D', 'secondStageAccessedDirty', yesNo('set by hardware', 'off')),
  ),
  used({
    name: 'PGTT',
    title: 'translation type',
    high: 8,
    low: 6,
    key: 'translationType',
    meaning: namedValues(['', 'first stage', 'second stage', 'nested', 'pass-through']),
  }),
  conditional(
    unit.specRevision === '3.x' && unit.executeRequest,
    'Rev 5.10, or ECAP.ERS=0',
    flag(5, 'SLEE', 'second-level execute enable', 'secondLevelExecuteEnable', yesNo('on', 'off')),
  ),
  conditional(unit.secondStage, 'ECAP.SSTS=0', {
    name: 'AW',
    title: 'address width of the second stage',
    high: 4,
    low: 2,
    key: 'addressWidth',
    meaning: addressWidthMeaning,
  }),
  faultProcessingField(),
  presentField(),
];

/** Quadword 1: domain, snooping, memory types. */
const memoryTypeFields = (unit: StructureCapabilities): BitField[] => [
  conditional(unit.memoryType, 'ECAP.MTS=0', {
    name: 'PAT',
    title: 'page attribute table, PA0 first',
    high: 127,
    low: 96,
    key: 'pageAttributeTable',
    meaning: patMeaning,
  }),
  conditional(unit.specRevision === '3.x' && unit.memoryType, 'Rev 5.10, or ECAP.MTS=0', {
    name: 'EMT',
    title: 'extended memory type',
    high: 93,
    low: 91,
    key: 'extendedMemoryType',
    meaning: namedValues(MEMORY_TYPES.slice(0, 7)),
  }),
  conditional(
    unit.memoryType,
    'ECAP.MTS=0',
    flag(90, 'EMTE', 'EMT of second-stage leaves', 'extendedMemoryTypeEnable', yesNo('used', 'ignored')),
  ),
  conditional(
    unit.memoryType,
    'ECAP.MTS=0',
    flag(89, 'CD', 'cache disable', 'cacheDisable', yesNo('uncached', 'normal')),
  ),
  conditional(
    unit.snoopControl,
    'ECAP.SC=0',
    flag(88, 'PGSNP', 'page snoop', 'pageSnoop', yesNo('every request snoops', 'by other attributes')),
  ),
  conditional(
    unit.pageWalkCoherency,
    'ECAP.SMPWC=0',
    flag(87, 'PWSNP', 'page-walk snoop', 'pageWalkSnoop', yesNo('walks snoop', 'walks do not snoop')),
  ),
  domainIdField(64, unit),
];

/** Quadword 2: first stage. */
const firstStageFields = (unit: StructureCapabilities): BitField[] => [
  conditional(unit.firstStage, 'ECAP.FSTS=0', {
    name: 'FSPTPTR',
    title: 'first-stage page table pointer',
    high: 128 + unit.hostAddressWidth - 1,
    low: 140,
    key: 'firstStagePfn',
    meaning: at('table'),
  }),
  conditional(
    unit.extendedAccessed,
    'ECAP.EAFS=0',
    flag(135, 'EAFE', 'extended accessed flag', 'extendedAccessedEnable', yesNo('set by hardware', 'off')),
  ),
  { name: 'ignored', title: 'for older software', high: 134, low: 133, use: 'ignored' },
  conditional(
    unit.firstStage,
    'ECAP.FSTS=0',
    flag(132, 'WPE', 'write protect', 'writeProtectEnable', yesNo('for supervisor too', 'supervisor may write')),
  ),
  conditional(unit.firstStage, 'ECAP.FSTS=0', {
    name: 'FSPM',
    title: 'first-stage paging mode',
    high: 131,
    low: 130,
    key: 'firstStagePagingMode',
    meaning: namedValues(['4 levels', '5 levels']),
  }),
  conditional(
    unit.specRevision === '3.x' && unit.executeRequest,
    'Rev 5.10, or ECAP.ERS=0',
    flag(129, 'ERE', 'execute requests', 'executeRequestEnable', yesNo('allowed', 'blocked')),
  ),
  conditional(
    unit.supervisorRequest,
    'ECAP.SRS=0',
    flag(128, 'SRE', 'supervisor requests', 'supervisorRequestEnable', yesNo('allowed', 'blocked')),
  ),
];

/** Quadwords 4 and 5: host permission table. */
const hostPermissionFields = (unit: StructureCapabilities): BitField[] => [
  conditional(unit.hostPermissionTable, 'ECAP.HPTS=0', {
    name: 'HPTDID',
    title: 'host permission domain identifier',
    high: 320 + unit.domainIdWidth - 1,
    low: 320,
    key: 'hostPermissionDomainId',
    meaning: (value) => `domain ${value}`,
  }),
  conditional(unit.hostPermissionTable, 'ECAP.HPTS=0', {
    name: 'HPTPTR',
    title: 'host permission table pointer',
    high: 256 + unit.hostAddressWidth - 1,
    low: 268,
    key: 'hostPermissionTablePfn',
    meaning: at('table'),
  }),
  conditional(
    unit.hostPermissionTable,
    'ECAP.HPTS=0',
    flag(258, 'HPTPFD', 'host permission prefetch', 'hostPermissionPrefetchDisable', yesNo('off', 'on')),
  ),
  conditional(unit.hostPermissionTable, 'ECAP.HPTS=0', {
    name: 'HPTSZ',
    title: 'host permission table size',
    high: 257,
    low: 256,
    key: 'hostPermissionTableSize',
    meaning: (value) => `addresses of ${49 + Number(value)} bits`,
  }),
];

/** Layout of a PASID table entry: eight quadwords (Rev 5.10, 9.6; SLEE, EMT and ERE are of Rev 3.x). */
export const pasidLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities((unit) =>
  layout({
    name: 'PASID table entry',
    source: '9.6',
    words: 8,
    fields: [
      ...hostPermissionFields(unit),
      ...firstStageFields(unit),
      ...memoryTypeFields(unit),
      ...secondStageFields(unit),
    ],
  }),
);
