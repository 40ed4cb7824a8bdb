import { DEFAULT_STRUCTURE_CAPABILITIES, type StructureCapabilities } from '@faultline/vtd-pagetable';
import { UsageError } from '../exit-code.ts';
import { suggestion } from '../nearest.ts';

/** Options of `vm-sim explain` that say which unit reads the entry. */
export interface UnitOptions {
  /** Host address width. */
  readonly haw?: number;
  /** Width of input addresses. */
  readonly mgaw?: number;
  readonly spec?: string;
  /** Levels that the unit walks, such as `3,4`. */
  readonly levels?: string;
  readonly with?: readonly string[];
  readonly without?: readonly string[];
  readonly snoopControl?: boolean;
  readonly deviceTlb?: boolean;
  /** False with `--no-2m`. */
  readonly '2m'?: boolean;
  /** False with `--no-1g`. */
  readonly '1g'?: boolean;
}

type Switch = {
  [K in keyof StructureCapabilities]: StructureCapabilities[K] extends boolean ? K : never;
}[keyof StructureCapabilities];

/** The specification's names of CAP and ECAP fields that are on or off. */
const SWITCHES: Readonly<Record<string, Switch>> = {
  '2M': 'page2M',
  '1G': 'page1G',
  SC: 'snoopControl',
  DT: 'deviceTlb',
  PT: 'passThrough',
  PASID: 'pasid',
  PRS: 'pageRequest',
  PTRS: 'pasidInTranslated',
  RPS: 'ridPasid',
  RPRIVS: 'ridPrivilege',
  HPTS: 'hostPermissionTable',
  FSTS: 'firstStage',
  FS5LP: 'firstStage5Level',
  SSTS: 'secondStage',
  NEST: 'nested',
  SSADS: 'secondStageAccessedDirty',
  EAFS: 'extendedAccessed',
  MTS: 'memoryType',
  SMPWC: 'pageWalkCoherency',
  SRS: 'supervisorRequest',
  ERS: 'executeRequest',
};

/** Names for `--with` and `--without`. */
export const CAPABILITY_NAMES: readonly string[] = Object.keys(SWITCHES);

/** The unit that the options describe. @throws UsageError naming the option */
export function unitOf(options: UnitOptions): StructureCapabilities {
  const unit = { ...DEFAULT_STRUCTURE_CAPABILITIES };
  return {
    ...unit,
    ...(options.snoopControl ? { snoopControl: true } : {}),
    ...(options['2m'] === false ? { page2M: false } : {}),
    ...(options['1g'] === false ? { page1G: false } : {}),
    ...(options.deviceTlb === false ? { deviceTlb: false } : {}),
    hostAddressWidth: within('--haw', options.haw ?? unit.hostAddressWidth, 32, 52),
    guestAddressWidth: within('--mgaw', options.mgaw ?? unit.guestAddressWidth, 30, 64),
    specRevision: revision(options.spec ?? unit.specRevision),
    addressWidths: options.levels === undefined ? unit.addressWidths : addressWidths(options.levels),
    ...switched('--with', options.with, true),
    ...switched('--without', options.without, false),
  };
}

function within(option: string, value: number, low: number, high: number): number {
  if (value < low || value > high)
    throw new UsageError(`${option} ${value}: expected a width of ${low} to ${high} bits`);
  return value;
}

function revision(text: string): StructureCapabilities['specRevision'] {
  if (text === '3.x' || text === '5.10') return text;
  if (/^3(\.\d)?$/.test(text)) return '3.x';
  throw new UsageError(`--spec ${text}: expected a revision of the specification, 3.x or 5.10`);
}

function addressWidths(text: string): number[] {
  const levels = text.split(',').map((part) => part.trim());
  if (!levels.every((level) => /^[345]$/.test(level)))
    throw new UsageError(`--levels ${text}: expected levels that the unit walks, such as 3,4 or 4,5`);
  return [...new Set(levels.map((level) => Number(level) - 2))];
}

function switched(option: string, lists: readonly string[] = [], value: boolean): Partial<Record<Switch, boolean>> {
  const found: Partial<Record<Switch, boolean>> = {};
  for (const name of lists.flatMap((list) => list.split(','))) {
    const key = SWITCHES[name.trim().toUpperCase()];
    if (key === undefined)
      throw new UsageError(`${option} ${name}: no such capability${suggestion(name, CAPABILITY_NAMES, 30)}`);
    found[key] = value;
  }
  return found;
}

/** The unit in a line, as far as it decides about an entry of this sort. */
export function unitText(unit: StructureCapabilities, structures: boolean): string {
  const sizes = ['4K', unit.page2M ? '2M' : '', unit.page1G ? '1G' : ''].filter((size) => size !== '').join(', ');
  const on = Object.entries(SWITCHES).flatMap(([name, key]) => (unit[key] && !/^[12]/.test(name) ? [name] : []));
  const more = structures
    ? `levels ${unit.addressWidths.map((width) => width + 2).join(' and ')}; ${on.join(' ')}`
    : `leaves of ${sizes}; ${unit.snoopControl ? 'snoop control' : 'no snoop control'}; ${unit.deviceTlb ? 'device TLBs' : 'no device TLBs'}`;
  return `VT-d Rev ${unit.specRevision}, ${unit.hostAddressWidth}-bit host addresses; ${more}`;
}
