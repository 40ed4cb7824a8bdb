/** Text that HTML takes for text. */
export const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5d6b7c; --line: #dfe4ea; --paper: #ffffff; --field: #f5f7f9;
  --good: #1a7f4b; --bad: #b3261e; --wait: #946200; --g1: #2f5d8c; --m2: #4fa3a5; --k4: #f0a04b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --dim: #9aa7b6; --line: #323b47; --paper: #14181e; --field: #1c222a;
  --good: #5cc98c; --bad: #ff8a80; --wait: #e8b64c; --g1: #6f9fd0; --m2: #63b9ba; --k4: #f2ad61; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; }
p { margin: .4rem 0; max-width: 48rem; }
.dim { color: var(--dim); }
.verdict { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; border: 1px solid currentColor; font-weight: 650;
  letter-spacing: .02em; margin-right: .5rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.card { background: var(--field); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.3rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--dim); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--dim); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
th.text, td.text { text-align: left; }
td.text:last-child { white-space: normal; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; }
pre { background: var(--field); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; margin: .5rem 0; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; }
svg text { fill: var(--ink); font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
svg .dim { fill: var(--dim); }
.legend span { margin-right: 1.25rem; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .4em; vertical-align: -.05em; }
`;

/** A page that needs no network, no script and no other file. `title` is text, `body` is HTML. */
export const htmlPage = (title: string, body: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
${body}
</body>
</html>
`;

/** How a table is laid out. */
interface TableOptions {
  /** Columns with text, which goes to the left; the first always does. */
  readonly text?: readonly number[];
}

/** A table that scrolls by itself when it is wider than the page. */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { text = [] }: TableOptions = {},
): string {
  const isText = (index: number): boolean => text.includes(index);
  const tone = (content: string): string =>
    ({ held: 'good', ok: 'good', violated: 'bad', failed: 'bad' })[content] ?? '';
  const cell = (content: string, index: number): string => {
    const names = [isText(index) ? 'text' : '', isText(index) ? tone(content) : ''].filter((name) => name !== '');
    return `<td${names.length > 0 ? ` class="${names.join(' ')}"` : ''}>${escaped(content)}</td>`;
  };
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n');
  const head = header
    .map((title, index) => `<th scope="col"${isText(index) ? ' class="text"' : ''}>${escaped(title)}</th>`)
    .join('');
  return `<div class="scroll"><table>\n<thead><tr>${head}</tr></thead>\n<tbody>\n${body}\n</tbody></table></div>`;
}
