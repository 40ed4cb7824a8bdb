/** Version of the packages, in the stats document and the banner. */
export const VERSION = '0.1.0';
