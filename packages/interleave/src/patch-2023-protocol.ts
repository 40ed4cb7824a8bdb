import { type Patch2023Defect, patch2023 } from '@faultline/iommufd-core';
import type { Protocol } from './protocol.ts';
import { SPLIT_CONFIGURATIONS, type SplitConfiguration } from './split-configuration.ts';
import type { SplitProtocol, SplitVariant } from './split-protocol.ts';
import { SplitWorld } from './split-world.ts';

/** Worlds in which a defect can show itself. */
interface Stage {
  readonly variant: SplitVariant;
  /** Whether I4 is claimed there: not where the reserve is empty and whole leaves have to go. */
  readonly hitless: boolean;
  readonly fits: (configuration: SplitConfiguration) => boolean;
}

const ordinary: Stage = { variant: {}, hitless: true, fits: () => true };

/** Bit 52, which VT-d ignores and software may use, as Linux does. */
const SOFTWARE_BIT = 1n << 52n;

const STAGES: Readonly<Record<Exclude<Patch2023Defect, 'D7'>, Stage>> = {
  // Hardware that does not snoop sees a new table only once it is written back.
  D1: { ...ordinary, fits: ({ coherent }) => !coherent },
  // The second of two splits fails: from 1G, with nothing in reserve.
  D3: {
    variant: { reservePages: 0 },
    hitless: false,
    fits: ({ leaf, allocationMayFail }) => leaf === '1G' && allocationMayFail,
  },
  // A range that is longer than 2M and begins inside a 2M leaf.
  D4: {
    ...ordinary,
    variant: { discardedPages: 700 },
    fits: ({ leaf, device }) => leaf === '1G' && device === 'no ATS',
  },
  // Hardware sets A and D in the leaf while it is being split: at its first use.
  D5: { ...ordinary, fits: ({ accessedDirty, cached }) => accessedDirty && cached === 'nothing' },
  D6: { ...ordinary, fits: ({ allocationMayFail }) => allocationMayFail },
  D8: { ...ordinary, variant: { attributes: SOFTWARE_BIT }, fits: ({ device }) => device === 'no ATS' },
  D9: { ...ordinary, fits: ({ cached }) => cached === 'leaf' },
};

/**
 * The posted patch with some of its defects, in the world in which one of them shows itself. D7 has none: it breaks no invariant, and
 * what it costs is measured (dirty inflation).
 * @param stage the defect whose world it is
 * @param defects those that are on; none: what the patch would be without them, which holds
 */
export function patch2023Protocol(
  stage: Exclude<Patch2023Defect, 'D7'>,
  defects: readonly Patch2023Defect[] = [stage],
): Protocol {
  const { variant, hitless, fits } = STAGES[stage];
  const parts: SplitProtocol = { strategy: patch2023({ defects }), hitless, variant };
  const on = defects.length > 0 ? defects.join(', ') : 'no defect';
  return {
    name: `patch-2023 (${stage})`,
    title: `the posted patch with ${on}`,
    configurations: SPLIT_CONFIGURATIONS.filter(fits).map((configuration) => ({
      name: configuration.name,
      build: () => new SplitWorld(configuration, parts),
    })),
  };
}
