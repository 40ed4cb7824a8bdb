import { z } from 'zod';
import { count, duration, size } from './quantity.ts';

/** What an action wants to be told: the range of guest memory, one of the VM's devices, or neither. */
interface ActionNeeds {
  readonly range: 'required' | 'optional' | 'none';
  readonly device: 'required' | 'optional' | 'none';
  readonly vm: boolean;
}

/** What the host can do while its guests run, by name. */
export const HOST_ACTIONS = {
  /** The VMM gives a range of guest memory back (a balloon, free page reporting). */
  'madvise-dontneed': { range: 'required', device: 'none', vm: true },
  /** Moves the folios of a range to other frames. */
  migrate: { range: 'required', device: 'none', vm: true },
  /** Compaction until a free 2M block is there. */
  compact: { range: 'none', device: 'none', vm: false },
  /** Merges pages of equal content in a range, of one VM or of all. */
  ksm: { range: 'required', device: 'none', vm: true },
  /** NUMA balancing marks a range, so that each page faults once. */
  'numa-hint': { range: 'required', device: 'none', vm: true },
  /** Write-protects the VM's memory to learn which pages its CPU writes (clear_refs). */
  'soft-dirty': { range: 'none', device: 'none', vm: true },
  /** MADV_COLLAPSE of every 2M of a range. */
  collapse: { range: 'required', device: 'none', vm: true },
  /** One pass of khugepaged over the VM's memory. */
  khugepaged: { range: 'none', device: 'none', vm: true },
  /** The frames of a range break (memory_failure). */
  poison: { range: 'required', device: 'none', vm: true },
  /** A device is pulled out while it works. */
  unplug: { range: 'none', device: 'required', vm: true },
  /** Devices move to a new HWPT of their IOAS while they work; all of them if none is named. */
  'hwpt-replace': { range: 'none', device: 'optional', vm: true },
  /** SIGKILL of the VMM: its memory goes, and with it the IOAS and the devices' attachments. */
  'process-exit': { range: 'none', device: 'none', vm: true },
} as const satisfies Readonly<Record<string, ActionNeeds>>;
/** An action by name. */
export type HostAction = keyof typeof HOST_ACTIONS;

const actions = Object.keys(HOST_ACTIONS) as [HostAction, ...HostAction[]];

/** Something that the host does at a time. */
export const hostEvent = z.strictObject({
  at: duration('Virtual time since the end of the boot'),
  every: duration('Time until it happens again, and so on; once if left out').optional(),
  times: count('How often at most, if it repeats', 1).optional(),
  action: z.enum(actions).describe('What the host does'),
  vm: z.string().describe('Whose VM, by name; the first if left out (ksm: all of them)').optional(),
  gpa: size('First byte of the range, a guest-physical address').optional(),
  length: size('Bytes of the range').optional(),
  device: z.string().describe('Which device of the VM: accelerator, disk or nic').optional(),
});
/** A host event with its settings. */
export type HostEvent = z.output<typeof hostEvent>;

/** What an action wants to be told. */
export const needsOf = (action: HostAction): ActionNeeds => HOST_ACTIONS[action];
