import { cutAndCollapse, STRATEGIES } from '@faultline/iommufd-core';
import type { Protocol } from './protocol.ts';
import { FAULT_CONFIGURATIONS, SPLIT_CONFIGURATIONS } from './split-configuration.ts';
import { type SplitProtocol, SplitWorld } from './split-world.ts';
import { pageRequestProtocol } from './worlds/page-request-protocol.ts';
import { tableProtocols } from './worlds/table-protocols.ts';

const PROTOCOL_PARTS: Readonly<Record<string, SplitProtocol & { readonly title: string }>> = {
  cut: {
    title: 'a page is cut out of its leaf while a device uses it: hitless, and never reached again',
    strategy: STRATEGIES.cut,
    hitless: true,
  },
  naive: {
    title: 'the bug of the 2023 thread: a sub-range unmap that takes a leaf for a table',
    strategy: STRATEGIES.naive,
    hitless: false,
    guestWords: true,
  },
  'whole-leaf': {
    title: 'the whole leaf goes: safe, but its innocent neighbours may fault (I4 is not claimed)',
    strategy: STRATEGIES['whole-leaf'],
    hitless: false,
  },
  paired: {
    title: 'all that was mapped as one goes as one: safe, and every innocent of the unit may fault (I4 is not claimed)',
    strategy: STRATEGIES.paired,
    hitless: false,
  },
  'break-before-make': {
    title: 'the leaf is cleared, flushed and mapped back small: innocents may fault in between (I4 is not claimed)',
    strategy: STRATEGIES['break-before-make'],
    hitless: false,
  },
  'patch-2023': {
    title: 'the posted patch to the letter, all its defects on',
    strategy: STRATEGIES['patch-2023'],
    hitless: true,
  },
  'cut+collapse': {
    title:
      'a page is cut out, comes back by a fault, and the large leaf is put back in the background: hitless throughout',
    strategy: cutAndCollapse({ quietPasses: 1 }),
    hitless: true,
  },
  'shared-ept': {
    title: "the CPU's second-stage table is the domain's: CPU and device faults fill it, and a page is cut out of it",
    strategy: STRATEGIES['shared-ept'],
    hitless: true,
  },
};

/** Protocols of the fault path: the device asks for pages that nothing maps yet. */
const FAULT_PARTS: Readonly<Record<string, SplitProtocol & { readonly title: string }>> = {
  'fault-vs-notifier': {
    title: 'a fault maps a page while the host takes it away: what is being taken is never mapped',
    strategy: STRATEGIES.cut,
    hitless: false,
    variant: { startsEmpty: true },
  },
  'fault-vs-fault': {
    title: 'two devices fault on one page at once, with two workers: it is mapped once, and both are answered',
    strategy: STRATEGIES.cut,
    hitless: false,
    variant: { startsEmpty: true, secondDevice: true, hostRests: true },
  },
};

/** A protocol that takes a page away, given by its parts, in each of {@link SPLIT_CONFIGURATIONS} or of others. */
export const splitProtocol = (
  name: string,
  title: string,
  parts: SplitProtocol,
  configurations = SPLIT_CONFIGURATIONS,
): Protocol => ({
  name,
  title,
  configurations: configurations.map((configuration) => ({
    name: configuration.name,
    build: () => new SplitWorld(configuration, parts),
  })),
});

/** The protocols of `vm-sim verify`. */
export const PROTOCOLS: readonly Protocol[] = [
  ...Object.entries(PROTOCOL_PARTS).map(([name, { title, ...parts }]) => splitProtocol(name, title, parts)),
  ...Object.entries(FAULT_PARTS).map(([name, { title, ...parts }]) => splitProtocol(name, title, parts, FAULT_CONFIGURATIONS)),
  ...tableProtocols(),
  pageRequestProtocol(),
];

/** A protocol by its name. @throws RangeError naming those that exist */
export function protocolNamed(name: string): Protocol {
  const found = PROTOCOLS.find((protocol) => protocol.name === name);
  if (!found) throw new RangeError(`protocol: "${name}" is not one of ${PROTOCOLS.map((of) => of.name).join(', ')}`);
  return found;
}
