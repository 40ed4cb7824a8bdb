import { PROTOCOLS, protocolNamed, verify } from '@faultline/interleave';
import { PROTOCOL_MODELS, type Verdict } from './catalogue.ts';

/** What the adversary of `interleave` found about a protocol, on the code that runs. */
export interface AdversaryResult {
  readonly verdict: Verdict | 'interrupted';
  /** Invariant of the counterexample. */
  readonly invariant: string | null;
  /** Complete executions over all configurations. */
  readonly executions: number;
  /** States visited: each as often as a schedule leads to it, unlike spin's. */
  readonly states: number;
  readonly seconds: number;
}

/** Protocols that have both a model here and code that `interleave` explores: the list grows with `interleave`'s. */
export const COMPARED: readonly string[] = PROTOCOLS.map(({ name }) => name).filter((name) =>
  PROTOCOL_MODELS.some((model) => model.name === name),
);

/** Protocols of `interleave` without a model here: those that are made of others. */
export const WITHOUT_MODEL: readonly string[] = PROTOCOLS.map(({ name }) => name).filter(
  (name) => !COMPARED.includes(name),
);

/** Explores a protocol with `interleave`. @param nowMs a clock @param seconds after which it is interrupted */
export function runAdversary(name: string, nowMs: () => number, seconds: number): AdversaryResult {
  const start = nowMs();
  const elapsed = (): number => (nowMs() - start) / 1000;
  const search = verify(protocolNamed(name), { shrink: false, shouldStop: () => elapsed() > seconds });
  for (;;) {
    const next = search.next();
    if (!next.done) continue;
    const { verdict, executions, states, counterexample } = next.value;
    return { verdict, invariant: counterexample?.invariant ?? null, executions, states, seconds: elapsed() };
  }
}
