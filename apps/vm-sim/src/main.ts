import { runApplication } from './application.ts';
import { engines } from './engines.ts';
import { processTerminal } from './process-terminal.ts';

const terminal = processTerminal();
// Set, not called with, so that what is still on its way to a pipe gets there.
process.exitCode = await runApplication(process.argv.slice(2), terminal, engines);
terminal.close();
