import type { LineAccount } from './line-account.ts';
import type { QemuVtdEvent } from './qemu-vtd-event.ts';

/** Events that are known by name and carry nothing used here. Union of QEMU 7.2's and 11.1's `vtd_*` trace events. */
const IRRELEVANT_EVENTS = new Set(
  `vtd_inv_desc vtd_inv_desc_wait_irq vtd_inv_desc_wait_write_fail vtd_inv_desc_iec vtd_inv_qi_enable vtd_inv_qi_setup
  vtd_inv_qi_head vtd_inv_qi_tail vtd_inv_qi_fetch vtd_re_not_present vtd_ce_not_present vtd_iotlb_cc_hit
  vtd_fault_disabled vtd_replay_ce_valid vtd_replay_ce_invalid vtd_page_walk_level vtd_page_walk_one
  vtd_page_walk_one_skip_map vtd_page_walk_one_skip_unmap vtd_page_walk_skip_read vtd_page_walk_skip_reserve
  vtd_switch_address_space vtd_as_unmap_whole vtd_translate_pt vtd_pt_enable_fast_path vtd_irq_generate vtd_reg_read
  vtd_reg_write vtd_reg_dmar_root vtd_reg_ir_root vtd_reg_write_gcmd vtd_reg_write_fectl vtd_reg_write_iectl
  vtd_reg_ics_clear_ip vtd_ir_enable vtd_ir_irte_get vtd_ir_remap vtd_ir_remap_type vtd_ir_remap_msi
  vtd_ir_remap_msi_req vtd_fsts_ppf vtd_fsts_clear_ip vtd_frr_new vtd_warn_invalid_qi_tail vtd_warn_ir_vector
  vtd_warn_ir_trigger vtd_pasid_cache_reset vtd_inv_desc_pasid_cache_gsi vtd_inv_desc_pasid_cache_dsi
  vtd_inv_desc_pasid_cache_psi vtd_pasid_cache_devsi vtd_reset_exit vtd_device_attach_hwpt vtd_device_detach_hwpt
  vtd_device_reattach_def_hwpt`
    .split(/\s+/)
    .filter((name) => name !== ''),
);

interface EventPattern {
  readonly text: RegExp;
  readonly build: (field: (index: number) => string) => QemuVtdEvent;
}

const HEX = '(0x[0-9a-f]+)';
const sidOf = (bus: string, device: string, fn: string): number =>
  (Number.parseInt(bus, 16) << 8) | (Number.parseInt(device, 16) << 3) | Number.parseInt(fn, 16);
const pageLookup = (kind: 'pageUpdate' | 'pageHit'): EventPattern => ({
  text: new RegExp(
    `^IOTLB page ${kind === 'pageHit' ? 'hit' : 'update'} sid ${HEX} iova ${HEX} (?:sl)?pte ${HEX} domain ${HEX}$`,
  ),
  build: (f) => ({ kind, sid: Number(f(1)), iova: BigInt(f(2)), slpte: BigInt(f(3)), did: Number(f(4)) }),
});

/** The events that carry data, by name. The texts are QEMU's trace formats. */
const PATTERNS: Readonly<Record<string, EventPattern>> = {
  vtd_dmar_translate: {
    text: new RegExp(`^dev ([0-9a-f]{2}):([0-9a-f]{2})\\.([0-9a-f]{2}) iova ${HEX} -> gpa ${HEX} mask ${HEX}$`),
    build: (f) => ({
      kind: 'translate',
      sid: sidOf(f(1), f(2), f(3)),
      iova: BigInt(f(4)),
      gpa: BigInt(f(5)),
      mask: BigInt(f(6)),
    }),
  },
  vtd_iotlb_page_update: pageLookup('pageUpdate'),
  vtd_iotlb_page_hit: pageLookup('pageHit'),
  vtd_iotlb_cc_update: {
    text: new RegExp(`^IOTLB context update bus ${HEX} devfn ${HEX} high ${HEX} low ${HEX} gen \\d+ -> gen \\d+$`),
    build: (f) => ({
      kind: 'contextUpdate',
      sid: (Number(f(1)) << 8) | Number(f(2)),
      high: BigInt(f(3)),
      low: BigInt(f(4)),
    }),
  },
  vtd_inv_desc_iotlb_pages: {
    text: new RegExp(`^iotlb invalidate domain ${HEX} addr ${HEX} mask ${HEX}$`),
    build: (f) => ({ kind: 'invalidatePages', did: Number(f(1)), address: BigInt(f(2)), addressMask: Number(f(3)) }),
  },
  vtd_inv_desc_iotlb_domain: {
    text: new RegExp(`^iotlb invalidate whole domain ${HEX}$`),
    build: (f) => ({ kind: 'invalidateDomain', did: Number(f(1)) }),
  },
  vtd_inv_desc_iotlb_global: { text: /^iotlb invalidate global$/, build: () => ({ kind: 'invalidateGlobal' }) },
  vtd_inv_desc_iotlb_pasid: {
    text: new RegExp(`^iotlb invalidate domain ${HEX} pasid ${HEX}$`),
    build: (f) => ({ kind: 'invalidatePasid', did: Number(f(1)), pasid: Number(f(2)) }),
  },
  vtd_inv_desc_iotlb_pasid_pages: {
    text: new RegExp(`^iotlb invalidate domain ${HEX} addr ${HEX} mask ${HEX} pasid ${HEX}$`),
    build: (f) => ({
      kind: 'invalidatePasidPages',
      did: Number(f(1)),
      address: BigInt(f(2)),
      addressMask: Number(f(3)),
      pasid: Number(f(4)),
    }),
  },
  vtd_inv_desc_cc_global: {
    text: /^context invalidate globally$/,
    build: () => ({ kind: 'contextInvalidateGlobal' }),
  },
  vtd_inv_desc_cc_domain: {
    text: new RegExp(`^context invalidate domain ${HEX}$`),
    build: (f) => ({ kind: 'contextInvalidateDomain', did: Number(f(1)) }),
  },
  vtd_inv_desc_cc_device: {
    text: /^context invalidate device ([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f]{2})$/,
    build: (f) => ({ kind: 'contextInvalidateDevice', sid: sidOf(f(1), f(2), f(3)) }),
  },
  vtd_inv_desc_cc_devices: {
    text: new RegExp(`^context invalidate devices sid ${HEX} fmask ${HEX}$`),
    build: (f) => ({ kind: 'contextInvalidateDevices', sid: Number(f(1)), compared: Number(f(2)) }),
  },
  vtd_context_cache_reset: { text: /^$/, build: () => ({ kind: 'contextReset' }) },
  vtd_iotlb_reset: {
    text: /^IOTLB reset \(reason: (.*)\)$/,
    build: (f) => ({ kind: 'iotlbReset', reason: f(1) }),
  },
  vtd_dmar_enable: { text: /^enable ([01])$/, build: (f) => ({ kind: 'dmarEnable', enabled: f(1) === '1' }) },
  vtd_dmar_fault: {
    text: new RegExp(`^sid ${HEX} fault (\\d+) addr ${HEX} write ([01])$`),
    build: (f) => ({
      kind: 'fault',
      sid: Number(f(1)),
      reason: Number(f(2)),
      address: BigInt(f(3)),
      write: f(4) === '1',
    }),
  },
  vtd_inv_desc_wait_sw: {
    text: new RegExp(`^wait invalidate status write addr ${HEX} data ${HEX}$`),
    build: (f) => ({ kind: 'waitStatus', address: BigInt(f(1)), data: Number(f(2)) }),
  },
};

/** `seconds.us:` or `pid@seconds.us:` as QEMU's log back end writes it, or nothing; then the event and its text. */
const LINE = /^(?:(?:\d+@)?\d+\.\d+:)?(vtd_\w+)(?: (.*))?$/;

/** Whether a line is one of QEMU's `vtd_*` trace, of whatever event. */
export const isQemuVtdLine = (line: string): boolean => LINE.test(line);

/** Every event name that the reader knows. */
export const knownQemuVtdEvents = (): string[] => [...Object.keys(PATTERNS), ...IRRELEVANT_EVENTS].sort();

/**
 * Reads one line and books it in the account.
 * @returns the event, or null for one without data, a blank line, or a line that was not understood
 */
export function readQemuVtdLine(line: string, account: LineAccount): QemuVtdEvent | null {
  account.line++;
  if (line.trim() === '') {
    account.comments++;
    return null;
  }
  const match = LINE.exec(line);
  const name = match?.[1] ?? '';
  if (IRRELEVANT_EVENTS.has(name)) {
    account.irrelevant++;
    return null;
  }
  const pattern = PATTERNS[name];
  const fields = pattern?.text.exec((match?.[2] ?? '').trimEnd());
  if (pattern === undefined || !fields) {
    account.addUnknown(line);
    return null;
  }
  account.parsed++;
  return pattern.build((index) => fields[index] ?? '');
}
