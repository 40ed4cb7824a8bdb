import { runApplication } from './application.ts';
import { engines } from './engines.ts';
import { processTerminal } from './process-terminal.ts';

// Set, not called with: what is still on its way to a pipe gets there, and nothing else keeps the process.
process.exitCode = await runApplication(process.argv.slice(2), processTerminal(), engines);
