process.stderr.write('vm-sim has no command yet\n');

export {};
