import { applicationBuild } from '../../tsup.shared.ts';

export default applicationBuild({ main: 'src/main.ts' });
