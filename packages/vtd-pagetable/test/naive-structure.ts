import type { StructureCapabilities } from '../src/index.ts';

/** Where a property of a decoded structure is: highest and lowest bit over all quadwords, as the tables of chapter 9 give them. */
export type Positions = Readonly<Record<string, readonly [high: number, low: number]>>;

export const ROOT: Positions = { contextPfn: [51, 12] };
export const CONTEXT: Positions = {
  faultProcessingDisabled: [1, 1],
  translationType: [3, 2],
  tablePfn: [51, 12],
  addressWidth: [66, 64],
  domainId: [87, 72],
};
export const SCALABLE_CONTEXT: Positions = {
  faultProcessingDisabled: [1, 1],
  deviceTlbEnable: [2, 2],
  pasidEnable: [3, 3],
  pageRequestEnable: [4, 4],
  hostPermissionTableEnable: [5, 5],
  pasidInTranslatedEnable: [6, 6],
  pasidDirectorySize: [11, 9],
  pasidDirectoryPfn: [51, 12],
  ridPasid: [83, 64],
  ridPrivilege: [84, 84],
};
export const PASID_DIRECTORY: Positions = { faultProcessingDisabled: [1, 1], pasidTablePfn: [51, 12] };
export const PASID: Positions = {
  faultProcessingDisabled: [1, 1],
  addressWidth: [4, 2],
  secondLevelExecuteEnable: [5, 5],
  translationType: [8, 6],
  secondStageAccessedDirty: [9, 9],
  secondStagePfn: [51, 12],
  domainId: [79, 64],
  pageWalkSnoop: [87, 87],
  pageSnoop: [88, 88],
  cacheDisable: [89, 89],
  extendedMemoryTypeEnable: [90, 90],
  extendedMemoryType: [93, 91],
  pageAttributeTable: [127, 96],
  supervisorRequestEnable: [128, 128],
  executeRequestEnable: [129, 129],
  firstStagePagingMode: [131, 130],
  writeProtectEnable: [132, 132],
  extendedAccessedEnable: [135, 135],
  firstStagePfn: [179, 140],
  hostPermissionTableSize: [257, 256],
  hostPermissionPrefetchDisable: [258, 258],
  hostPermissionTablePfn: [307, 268],
  hostPermissionDomainId: [335, 320],
};

const within = (bit: number, low: number, high: number): boolean => bit >= low && bit <= high;

/** Reserved bits rule by rule, in the order of the tables of 9.1-9.6; the structure is present. */
export const RESERVED: Readonly<Record<string, (bit: number, unit: StructureCapabilities) => boolean>> = {
  root: (bit, unit) => bit >= 64 || bit >= unit.hostAddressWidth || within(bit, 1, 11),
  'root-scalable': (bit, unit) => {
    const half = bit % 64;
    return half >= unit.hostAddressWidth || within(half, 1, 11);
  },
  context: (bit, unit) => {
    if (bit >= 88 || bit === 71) return true;
    if (within(bit, 72, 87)) return bit >= 72 + unit.domainIdWidth;
    if (bit >= 64) return false;
    return bit >= unit.hostAddressWidth || within(bit, 4, 11);
  },
  'context-scalable': (bit, unit) => {
    if (bit >= 85 || bit === 7 || bit === 8) return true;
    if (bit === 84) return !unit.ridPrivilege;
    if (within(bit, 64, 83)) return !unit.ridPasid;
    if (within(bit, 12, 63)) return bit >= unit.hostAddressWidth;
    if (bit === 6) return !unit.pasidInTranslated;
    if (bit === 5) return !unit.hostPermissionTable;
    if (bit === 4) return !unit.pageRequest;
    if (bit === 3) return !unit.pasid;
    return bit === 2 && !unit.deviceTlb;
  },
  'pasid-dir': (bit, unit) => bit >= unit.hostAddressWidth || within(bit, 2, 11),
  pasid: (bit, unit) => {
    const revision3 = unit.specRevision === '3.x';
    if (bit >= 256) {
      if (!unit.hostPermissionTable) return true;
      if (within(bit, 256, 258)) return false;
      if (within(bit, 268, 255 + unit.hostAddressWidth)) return false;
      return !within(bit, 320, 319 + unit.domainIdWidth);
    }
    if (bit >= 192 || within(bit, 136, 139)) return true;
    if (within(bit, 140, 191)) return !unit.firstStage || bit >= 128 + unit.hostAddressWidth;
    if (bit === 135) return !unit.extendedAccessed;
    if (bit === 133 || bit === 134) return false;
    if (within(bit, 130, 132)) return !unit.firstStage;
    if (bit === 129) return !(revision3 && unit.executeRequest);
    if (bit === 128) return !unit.supervisorRequest;
    if (within(bit, 96, 127) || bit === 90 || bit === 89) return !unit.memoryType;
    if (within(bit, 91, 93)) return !(revision3 && unit.memoryType);
    if (bit === 94 || bit === 95) return true;
    if (bit === 88) return !unit.snoopControl;
    if (bit === 87) return !unit.pageWalkCoherency;
    if (within(bit, 80, 86)) return true;
    if (within(bit, 64, 79)) return bit >= 64 + unit.domainIdWidth;
    if (within(bit, 12, 63)) return !unit.secondStage || bit >= unit.hostAddressWidth;
    if (bit === 10 || bit === 11) return true;
    if (bit === 9) return !unit.secondStage || !unit.secondStageAccessedDirty;
    if (bit === 5) return !(revision3 && unit.executeRequest);
    return within(bit, 2, 4) && !unit.secondStage;
  },
};
