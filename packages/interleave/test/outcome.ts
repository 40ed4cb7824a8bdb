import { type Protocol, type VerifyOptions, type VerifyResult, verify } from '../src/index.ts';

/** Runs a verification to its end. */
export function outcome(protocol: Protocol, options: VerifyOptions = {}): VerifyResult {
  const search = verify(protocol, options);
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

/** The configurations with few orders: enough for the fast suite. `strategies.slow.test.ts` explores all. */
export const quick = (protocol: Protocol): Protocol => ({
  ...protocol,
  configurations: protocol.configurations.filter(({ name }) => !/two walkers|may get lost|room for two/.test(name)),
});
