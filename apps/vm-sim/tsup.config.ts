import { applicationBuild } from '../../tsup.shared.ts';

export default applicationBuild({ main: 'src/main.ts', 'storm-worker': 'src/fuzz/storm-worker.ts' });
