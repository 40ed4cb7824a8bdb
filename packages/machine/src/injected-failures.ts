import { parseDurationNs } from '@faultline/address';
import type { FaultInjection, HostMemory } from '@faultline/host-mm';
import { type ChoicePolicy, RandomStream } from '@faultline/sim';
import type { Scenario } from './scenario.ts';
import type { InjectionStats } from './stats.ts';

/** The failures that a scenario asks for: none while the host boots, at random from then on. */
export class InjectedFailures {
  readonly #settings: Scenario['inject'];
  readonly #random: RandomStream;
  readonly #counts = { frameAllocation: 0, tableAllocation: 0, invalidationTimeout: 0 };
  #on = false;
  #host: HostMemory | null = null;

  constructor(settings: Scenario['inject'], seed: number) {
    this.#settings = settings;
    this.#random = new RandomStream(seed, 'injected failures');
  }

  /** What the host asks at each allocation. */
  get ofFrames(): FaultInjection {
    return { allocationFails: () => this.#fails('frameAllocation') };
  }

  /** What virtual time asks at each choice: whether a table page is refused. */
  get ofTables(): ChoicePolicy {
    return (_agent, _label, choices) => (choices > 1 && this.#fails('tableAllocation') ? 1 : 0);
  }

  /** What a device asks at each device-TLB invalidation: 0 to answer it, else for how long (ns) the unit waits in vain. */
  unansweredBy(): () => number {
    const { invalidationSilence, timeoutAfter } = this.#settings;
    const timeoutNs = parseDurationNs(timeoutAfter);
    let isSilent = false;
    return () => {
      if (!this.#on) return 0;
      if (isSilent) this.#counts.invalidationTimeout++;
      else if (this.#fails('invalidationTimeout'))
        isSilent = invalidationSilence > 0 && this.#random.chance(invalidationSilence);
      else return 0;
      return timeoutNs;
    };
  }

  /** The boot is over. */
  start(host: HostMemory): void {
    const { swapRead, swapWrite, slowSwap } = this.#settings;
    this.#on = true;
    this.#host = host;
    for (const { faults } of host.swap.areas) {
      faults.slowFactor = slowSwap;
      if (swapRead > 0) faults.failReads = () => this.#on && this.#random.chance(swapRead);
      if (swapWrite > 0) faults.failWrites = () => this.#on && this.#random.chance(swapWrite);
    }
  }

  /** The run is over: what is taken apart must not fail for that. */
  stop(): void {
    this.#on = false;
  }

  /** How many failures there were. */
  get counts(): InjectionStats {
    const areas = this.#host?.swap.areas ?? [];
    return {
      ...this.#counts,
      swapRead: areas.reduce((sum, { faults }) => sum + faults.injectedReadErrors, 0),
      swapWrite: areas.reduce((sum, { faults }) => sum + faults.injectedWriteErrors, 0),
    };
  }

  #fails(what: 'frameAllocation' | 'tableAllocation' | 'invalidationTimeout'): boolean {
    const share = this.#settings[what];
    if (!this.#on || share === 0 || !this.#random.chance(share)) return false;
    this.#counts[what]++;
    return true;
  }
}
