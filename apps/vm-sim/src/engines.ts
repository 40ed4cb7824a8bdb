import { PROTOCOLS, verify, ZOO } from '@faultline/interleave';
import type { Engines } from './application.ts';
import { buildMachine } from './run/driven-machine.ts';

/** The simulator and the explorer of interleavings. */
export const engines: Engines = { buildMachine, verifier: { protocols: PROTOCOLS, zoo: ZOO, verify } };
