import { STRATEGIES } from '@faultline/iommufd-core';
import type { Protocol } from './protocol.ts';
import { type SplitConfiguration, type SplitProtocol, SplitWorld } from './split-world.ts';

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
};

/**
 * The configurations that every protocol is explored in: each leaf size, the page itself or its neighbour, cached or not, table
 * pages refused or not, with and without a device TLB; and, with page requests, the fault handler against the notifier.
 */
export const SPLIT_CONFIGURATIONS: readonly SplitConfiguration[] = (['2M', '1G'] as const).flatMap((leaf) => [
  ...(['victim', 'neighbour'] as const).flatMap((target) =>
    (['no ATS', 'ATS'] as const).flatMap((device) =>
      [true, false].flatMap((warm) =>
        [false, true].map((allocationMayFail) => configuration({ leaf, target, device, warm, allocationMayFail })),
      ),
    ),
  ),
  configuration({ leaf, target: 'victim', device: 'ATS and PRI', warm: true, allocationMayFail: false }),
]);

function configuration(parts: Omit<SplitConfiguration, 'name'>): SplitConfiguration {
  const name = [
    `${parts.leaf}->4K`,
    `DMA to the ${parts.target}`,
    parts.device,
    parts.warm ? 'cached' : 'not cached',
    parts.allocationMayFail ? 'allocation may fail' : 'allocation succeeds',
  ].join(', ');
  return { name, ...parts };
}

/** A protocol that takes a page away, given by its parts, in each of {@link SPLIT_CONFIGURATIONS}. */
export const splitProtocol = (name: string, title: string, parts: SplitProtocol): Protocol => ({
  name,
  title,
  configurations: SPLIT_CONFIGURATIONS.map((configuration) => ({
    name: configuration.name,
    build: () => new SplitWorld(configuration, parts),
  })),
});

/** The protocols of `vm-sim verify`. */
export const PROTOCOLS: readonly Protocol[] = Object.entries(PROTOCOL_PARTS).map(([name, { title, ...parts }]) =>
  splitProtocol(name, title, parts),
);

/** A protocol by its name. @throws RangeError naming those that exist */
export function protocolNamed(name: string): Protocol {
  const found = PROTOCOLS.find((protocol) => protocol.name === name);
  if (!found) throw new RangeError(`protocol: "${name}" is not one of ${PROTOCOLS.map((of) => of.name).join(', ')}`);
  return found;
}
