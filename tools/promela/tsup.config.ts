import { defineConfig } from 'tsup';

/** One file with everything in it, libraries too: the tool is never published, and starts from any checkout. */
export default defineConfig({
  entry: { main: 'src/main.ts' },
  format: ['esm'],
  platform: 'node',
  target: 'node20',
  noExternal: [/./],
  clean: true,
  sourcemap: true,
  treeshake: true,
  silent: true,
  esbuildOptions(options) {
    options.conditions = ['@faultline/source'];
  },
});
