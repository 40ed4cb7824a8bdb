import { STRATEGIES } from '@faultline/iommufd-core';
import { type ExplorationResult, type ExploreOptions, explore } from './explorer.ts';
import type { ScheduledStep } from './schedule.ts';
import { type SplitConfiguration, type SplitProtocol, SplitWorld } from './split-world.ts';

/** A protocol that can be verified. */
export interface Protocol {
  readonly name: string;
  /** One line for a list. */
  readonly title: string;
}

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

/** The protocols of `vm-sim verify`. */
export const PROTOCOLS: readonly Protocol[] = Object.entries(PROTOCOL_PARTS).map(([name, { title }]) => ({
  name,
  title,
}));

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

/** What became of one configuration. */
export interface ConfigurationResult {
  readonly name: string;
  readonly executions: number;
  readonly pruned: number;
  readonly verdict: 'holds' | 'violated';
}

/** The result of {@link verify}. */
export interface VerifyResult {
  readonly protocol: string;
  /** What the protocol claims: a verdict is about this and the invariants, and nothing else. */
  readonly title: string;
  readonly verdict: 'holds' | 'violated' | 'interrupted';
  /** Complete executions over all configurations. */
  readonly executions: number;
  /** Executions given up as equivalent to others. */
  readonly pruned: number;
  readonly steps: number;
  /** Steps of the longest execution. */
  readonly longest: number;
  readonly configurations: readonly ConfigurationResult[];
  readonly counterexample: null | {
    readonly configuration: string;
    readonly invariant: string;
    readonly message: string;
    readonly schedule: readonly ScheduledStep[];
  };
}

/** Options of {@link verify}. */
export interface VerifyOptions extends ExploreOptions {
  /** Asked now and then; true ends the exploration with the verdict `interrupted`. */
  readonly shouldStop?: () => boolean;
  /** Called now and then. */
  readonly onProgress?: (progress: { executions: number }) => void;
  /** Stops, interrupted, after so many executions. */
  readonly maxExecutions?: number;
}

/**
 * Explores a protocol in all its configurations, up to the first violation. A generator that yields now and then.
 * @throws RangeError for a protocol that does not exist, naming those that do
 */
export function* verify(
  name: string,
  options: VerifyOptions = {},
): Generator<{ executions: number; steps: number }, VerifyResult> {
  const protocol = PROTOCOL_PARTS[name];
  if (!protocol) throw new RangeError(`protocol: "${name}" is not one of ${Object.keys(PROTOCOL_PARTS).join(', ')}`);
  return yield* verifySplit(name, protocol, options);
}

/** {@link verify} for a protocol given by its parts, such as one with a defect. */
export function* verifySplit(
  name: string,
  protocol: SplitProtocol,
  options: VerifyOptions = {},
): Generator<{ executions: number; steps: number }, VerifyResult> {
  const total = { executions: 0, pruned: 0, steps: 0, longest: 0 };
  const configurations: ConfigurationResult[] = [];
  const result = (verdict: VerifyResult['verdict'], counterexample: VerifyResult['counterexample']): VerifyResult => ({
    protocol: name,
    title: protocol.title ?? name,
    verdict,
    ...total,
    configurations,
    counterexample,
  });
  for (const configuration of SPLIT_CONFIGURATIONS) {
    const search = explore(() => new SplitWorld(configuration, protocol), options);
    let next = search.next();
    for (; !next.done; next = search.next()) {
      const executions = total.executions + next.value.executions;
      options.onProgress?.({ executions });
      if (options.shouldStop?.() || executions >= (options.maxExecutions ?? Number.POSITIVE_INFINITY))
        return result('interrupted', null);
      yield { executions, steps: total.steps + next.value.steps };
    }
    const found: ExplorationResult = next.value;
    total.executions += found.executions;
    total.pruned += found.pruned;
    total.steps += found.steps;
    total.longest = Math.max(total.longest, found.longest);
    const verdict = found.violation ? 'violated' : 'holds';
    const { executions, pruned, violation } = found;
    configurations.push({ name: configuration.name, executions, pruned, verdict });
    if (violation) return result('violated', { configuration: configuration.name, ...violation });
  }
  return result('holds', null);
}
