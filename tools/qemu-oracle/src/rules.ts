/** Where QEMU is not the truth, and what the comparison does about it. */
export interface Rule {
  readonly id: string;
  /** What QEMU does. */
  readonly qemu: string;
  /** What the specification (VT-d Rev 5.10) says, or hardware does. */
  readonly hardware: string;
  /**
   * - `reproduced`: the model's side of the comparison does as QEMU does
   * - `avoided`: random programs leave it out
   * - `configured`: the model is given QEMU's geometry or capability, which other hardware need not have
   */
  readonly treatment: 'reproduced' | 'avoided' | 'configured';
  /** How exactly. */
  readonly comparison: string;
  /** Where it was seen. */
  readonly seen: string;
}

const SWITCHABLE = [
  {
    id: 'page-mask-8-bits',
    qemu: 'Before version 10 a page-selective invalidation compares only the lower 8 bits of page numbers, and so drops other pages too.',
    hardware: 'Drops the pages that the address mask covers; more is allowed (6.5.2.3).',
    treatment: 'reproduced',
    comparison: "QEMU_7_2_IOTLB_OPTIONS as the model's IOTLB if the QEMU that answers is older than 10.",
    seen: 'live, 7.2.22; two recordings of 7.2 with a Linux guest',
  },
  {
    id: 'silent-denial',
    qemu: 'A DMA that hits an IOTLB entry without the right is translated in its trace, then dropped: no walk, no fault record.',
    hardware: 'Walks again or faults; a DMA that is refused is recorded (7.1.3).',
    treatment: 'reproduced',
    comparison: "The model's cached entry is the answer, and its data does not move.",
    seen: 'live, 7.2.22; answers of 11.1.3',
  },
  {
    id: 'context-domain-is-global',
    qemu: 'A domain-selective context-cache invalidation drops the contexts of all domains.',
    hardware: 'In legacy mode it drops the contexts of the domain (6.5.2.1).',
    treatment: 'reproduced',
    comparison: 'The model is given a global one.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'context-device-ignores-did',
    qemu: 'A device-selective context-cache invalidation looks at the source-id and the function mask only.',
    hardware: 'In legacy mode it has to match the domain-id too (6.5.2.1).',
    treatment: 'reproduced',
    comparison: 'The model is given one for each domain-id that it has cached.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'context-reserved-recorded',
    qemu: 'A reserved bit in a context entry (reason 0xb) is recorded with FPD set, too.',
    hardware: 'Rev 5.10: FPD suppresses it (LCT.3 of table 30 is qualified).',
    treatment: 'configured',
    comparison: "The model's revision is 3.x; without the rule, 5.10.",
    seen: 'live, 7.2.22',
  },
  {
    id: 'pass-through-any-width',
    qemu: 'Passes an address of any width through.',
    hardware: 'Refuses an address beyond the host address width with reason 4 (LGN.1.3).',
    treatment: 'reproduced',
    comparison: 'Where the model refuses so, it passes the address through.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'pass-through-bypass',
    qemu: 'A function whose context entry has TT=10b is taken out of remapping by its first DMA, or by the next context-cache invalidation that concerns it or SRTP, until a later one of those: the IOTLB is not looked at.',
    hardware: 'Every DMA is looked up.',
    treatment: 'reproduced',
    comparison: 'The model passes DMA of that function through in the same intervals.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'srtp-invalidates',
    qemu: 'Setting the root table pointer drops the context cache and the IOTLB.',
    hardware: 'Only with CAP.ESRTPS; otherwise software has to invalidate both (6.6).',
    treatment: 'reproduced',
    comparison: "The model's caches are emptied with it.",
    seen: 'live, 7.2.22',
  },
  {
    id: 'iotlb-1024-reset',
    qemu: 'The IOTLB holds 1024 entries of all sizes; a fill that finds it full empties it.',
    hardware: 'Sets and ways, with replacement one by one.',
    treatment: 'configured',
    comparison: 'QEMU_IOTLB_OPTIONS; without the rule, 2048 entries.',
    seen: 'live, 7.2.22; answers of 11.1.3',
  },
  {
    id: 'partial-invalidation-drops-large',
    qemu: 'A page-selective invalidation of one page in a cached large page drops the whole entry.',
    hardware: 'Software may rely only on one whose mask covers the page (6.5.2.3, 6.5.3.3).',
    treatment: 'configured',
    comparison: 'QEMU_IOTLB_OPTIONS.',
    seen: 'live, 7.2.22; answers of 11.1.3',
  },
  {
    id: 'no-paging-structure-cache',
    qemu: 'Every walk starts at the root of the table, so IH of an invalidation changes nothing.',
    hardware: 'May cache entries of every level above the leaf; IH=1 keeps them (6.2.5, 6.5.2.3).',
    treatment: 'configured',
    comparison: "The model's paging-structure caches have no ways.",
    seen: 'live, 7.2.22; answers of 11.1.3',
  },
  {
    id: 'fault-address-whole',
    qemu: 'A fault record (FI) has all bits of the faulted address.',
    hardware: 'Bits above the largest AGAW that the unit supports are 0 (11.4.7.6).',
    treatment: 'reproduced',
    comparison: "The request's bits from there on are put into the model's FI.",
    seen: 'live, 7.2.22; answers of 11.1.3',
  },
  {
    id: 'address-width-is-mgaw',
    qemu: 'One property, aw-bits, is the guest and the host address width: address bits at and above it are reserved in entries.',
    hardware: 'The host address width is a number of its own.',
    treatment: 'configured',
    comparison: "The model's host address width is CAP.MGAW + 1.",
    seen: 'live, 7.2.22, aw-bits 39 and 48',
  },
] as const satisfies readonly Rule[];

/** Nothing can be switched off here: one side cannot do it otherwise. */
const FIXED: readonly Rule[] = [
  {
    id: 'not-present-never-cached',
    qemu: 'A fault is never cached, with caching mode on either.',
    hardware: 'The same at CAP.CM=0; at CM=1 results of walks that fault may be cached (6.1).',
    treatment: 'configured',
    comparison: 'CM=0 on both sides.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'interrupt-window',
    qemu: 'DMA to IOVA 0xfee00000-0xfeefffff is not translated, and a read goes through; a write is an interrupt message.',
    hardware: 'A write is an interrupt message; a read is blocked with reason 0xe (3.15).',
    treatment: 'avoided',
    comparison: 'No DMA goes there: under TCG a message wakes the processor, and then each DMA takes minutes.',
    seen: 'live, 7.2.22 (the read); reference measurements, 7.2 to 11.1.3',
  },
  {
    id: 'leaf-into-interrupt-window',
    qemu: 'A leaf whose page overlaps host address 0xfee00000-0xfeefffff is refused with reason 0xe.',
    hardware: 'Reason 0xe if the output address itself is in that range (LGN.4); another page of the leaf may be used.',
    treatment: 'avoided',
    comparison: 'No leaf of a random program overlaps that range.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'all-ones-entry',
    qemu: 'A paging entry of 64 ones counts as one that could not be read: reason 3 or 7.',
    hardware: 'Reserved bits are set: reason 0xc.',
    treatment: 'avoided',
    comparison: 'No random entry is all ones.',
    seen: 'live, 7.2.22',
  },
  {
    id: 'eight-byte-retry',
    qemu: 'An 8-byte access to an address that faults is tried again as two of 4 bytes: two faults.',
    hardware: 'One request, one fault.',
    treatment: 'avoided',
    comparison: 'All DMA is 4 bytes, aligned.',
    seen: 'reference measurements, 7.2 to 11.1.3',
  },
  {
    id: 'no-accessed-dirty',
    qemu: 'Sets no A and D bits in any mode.',
    hardware: 'Needs SSADE of a PASID entry (3.7.2); none in legacy mode.',
    treatment: 'avoided',
    comparison: 'Legacy mode only, where neither side sets them.',
    seen: 'reference measurements, 7.2 to 11.1.3',
  },
  {
    id: 'no-five-level',
    qemu: 'aw-bits=57 is refused; AW=3 in a context entry is invalid (reason 3).',
    hardware: 'CAP.SAGAW bit 3.',
    treatment: 'avoided',
    comparison: 'Programs with 3 and 4 levels; AW=3 only as an invalid one.',
    seen: 'live, 7.2.22',
  },
];

/** Every rule, for `--rules` and for the documents. */
export const RULES: readonly Rule[] = [...SWITCHABLE, ...FIXED];

/** A rule that can be switched off; a recorded program then shows the difference. */
export type RuleId = (typeof SWITCHABLE)[number]['id'];

/** All of them. */
export const ALL_RULES: ReadonlySet<RuleId> = new Set(SWITCHABLE.map(({ id }) => id));

/** Whether a string names a rule that can be switched off. */
export const isRuleId = (id: string): id is RuleId => SWITCHABLE.some((rule) => rule.id === id);
