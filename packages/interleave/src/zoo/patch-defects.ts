import type { Patch2023Defect } from '@faultline/iommufd-core';
import { FS_PRESENT, FS_WRITE } from '@faultline/vtd-pagetable';
import { patch2023Protocol } from '../patch-2023-protocol.ts';
import { firstStageProtocol } from '../worlds/first-stage-protocol.ts';
import type { Defect, ExploredDefect } from './defect.ts';
import { DIRTY_INFLATION } from './dirty-inflation.ts';

const SOURCE = '"iommu/vt-d: Atomic breakdown of IOPT into finer granularity", linux-kernel, 14 August 2023';

const ofPatch = (
  id: Exclude<Patch2023Defect, 'D7'>,
  title: string,
  text: string,
  breaks: readonly string[],
): ExploredDefect => ({
  id,
  title,
  source: SOURCE,
  text,
  breaks,
  protocol: patch2023Protocol(id),
});

/** The defects of the posted patch, each alone. */
export const PATCH_DEFECTS: readonly Defect[] = [
  ofPatch(
    'D1',
    'the new table is not written back from the CPU’s cache before it is published',
    'On a unit that does not snoop, the walker follows the new entry and reads the table’s page in memory as it was before: zeros, or somebody’s old entries. Every innocent page of the old leaf faults until the lines happen to be written back.',
    ['I3', 'I4'],
  ),
  {
    id: 'D2',
    title: 'a first-stage directory entry is written without U/S and A',
    source: SOURCE,
    text: 'switch_to_small_page() writes R and W, which in a first-stage entry are P and R/W. U/S stays 0: that is a supervisor’s table, and every request of user privilege below it faults (VT-d Rev 5.10, 3.6.1, condition SGN.2). A stays 0 too, and a unit that does not snoop faults where it would have to set it (SFS.9). pfn_to_dma_pte() sets both in a first-stage domain.',
    breaks: ['I4'],
    protocol: firstStageProtocol(FS_PRESENT | FS_WRITE),
  },
  ofPatch(
    'D3',
    'the result of the recursive call is dropped: a second split that fails counts as success',
    'From 1G to 4K two splits are needed. If the table page for the second one cannot be had, the recursion returns an error that its caller ignores. The unmap reports success and the page stays mapped: DMA into a frame that the host gives to somebody else.',
    ['I1', 'I8'],
  ),
  ofPatch(
    'D4',
    'a superpage of which the range covers only the head or the tail is not split',
    'The patch splits only where the range is smaller than the entry’s size. A longer range that begins or ends inside a superpage finds it whole, and the recursion descends into it as if it were a table: it reads guest memory as entries and clears them.',
    ['I3'],
  ),
  ofPatch(
    'D5',
    'the compare-and-swap fails when hardware sets A or D, and is not tried again',
    'Hardware sets A or D in the leaf between the read and the compare-and-swap. The split is given up, and the unmap returns 0 bytes. A notifier cannot fail, so the host goes on and takes the page, which is still mapped.',
    ['I1', 'I8'],
  ),
  ofPatch(
    'D6',
    'table pages are allocated in the notifier, when memory is short',
    'Two table pages (GFP_ATOMIC) to give back one page, in the path that runs because there are none. The allocation fails exactly under pressure, and the page that was to be taken stays mapped.',
    ['I1', 'I8'],
  ),
  { ...DIRTY_INFLATION, source: SOURCE },
  ofPatch(
    'D8',
    'only the low 12 attribute bits of the leaf are copied to the children',
    'What stands above the address, such as bits for software from 52 on, is lost for every page of the old leaf.',
    ['I4'],
  ),
  ofPatch(
    'D9',
    'only the page is invalidated, with a 4K mask, though a 1G or 2M translation is cached',
    'The mask of a page-selective invalidation has to match the old page (VT-d Rev 5.10, 6.5.2.3, 6.5.3.3). A cached translation of the whole leaf may survive an invalidation of 4K, and the device goes on reaching the page that was taken.',
    ['I1'],
  ),
];
