// Compares what Millpond's LogQL parser accepts with the grammar that Grafana publishes: the hand-chosen expressions of
// expressions.txt and many drawn ones. Every difference must be one that differences.json explains: by Millpond's error, or
// by the expression, where "formatted" says that the grammar reads it as Millpond formats it, if need be without what a
// pattern finds. Everything that is explained must occur, and formatting twice must change nothing.
// Usage: node compare.js MILLPOND [DRAWN [SEED]]
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { parser } from '@grafana/lezer-logql';
import { Draw } from './draw.js';

const here = (name) => readFileSync(new URL(name, import.meta.url), 'utf8');
const [millpond, drawn = '6000', seed = '5'] = process.argv.slice(2);
if (!millpond) {
  console.error('usage: node compare.js MILLPOND [DRAWN [SEED]]');
  process.exit(2);
}

function grammarAccepts(text) {
  let accepted = true;
  parser.parse(text).iterate({ enter: (node) => { accepted &&= !node.type.isError; } });
  return accepted;
}

/** For each expression its formatted form, or the error. */
function read(expressions) {
  const input = expressions.map((text) => `${JSON.stringify(text)}\n`).join('');
  const ran = spawnSync(millpond, ['fmt', '--json'], { input, encoding: 'utf8', maxBuffer: 1 << 28 });
  const lines = (ran.stdout ?? '').trimEnd().split('\n');
  if (ran.error || lines.length !== expressions.length) {
    throw new Error(`${millpond} fmt answered ${lines.length} of ${expressions.length} lines: ${ran.error ?? ran.stderr}`);
  }
  return lines.map((line) => JSON.parse(line));
}

/** Whether the grammar reads the formatted expression, where the rule says that it must. */
function explains({ formatted: must }, formatted) {
  if (!must) return true;
  return grammarAccepts(must === true ? formatted : formatted.replaceAll(new RegExp(must, 'gu'), ''));
}

const chosen = here('expressions.txt').split('\n')
  .filter((line) => line !== '' && !(line.startsWith('#') && !line.includes('␤')))
  .map((line) => line.replaceAll('␤', '\n'));
const draw = new Draw(Number(seed));
const expressions = [...new Set([...chosen, ...Array.from({ length: Number(drawn) }, () => draw.expression())])];
const rules = JSON.parse(here('differences.json')).map((rule) => (
  { ...rule, pattern: new RegExp(rule.error ?? rule.expression, 'u'), seen: 0 }));

const answers = read(expressions);
const again = read(answers.flatMap(({ formatted }) => formatted ?? []));
const unexplained = [];
const count = { both: 0, neither: 0, 'only the grammar': 0, 'only Millpond': 0 };
let formattedAt = 0;
expressions.forEach((text, at) => {
  const { formatted, error } = answers[at];
  const theirs = grammarAccepts(text);
  if (formatted !== undefined) {
    const twice = again[formattedAt];
    formattedAt += 1;
    if (twice.formatted !== formatted) unexplained.push(`formatted twice: ${text}\n  ${formatted}\n  ${twice.formatted ?? twice.error}`);
  }
  if (theirs === (error === undefined)) {
    count[theirs ? 'both' : 'neither'] += 1;
    return;
  }
  count[theirs ? 'only the grammar' : 'only Millpond'] += 1;
  const rule = rules.find((rule) => (theirs
    ? rule.accepts === 'grammar' && rule.pattern.test(error)
    : rule.accepts === 'millpond' && rule.pattern.test(text) && explains(rule, formatted)));
  if (rule) rule.seen += 1;
  else unexplained.push(`only ${theirs ? 'the grammar' : 'Millpond'} accepts: ${text}${error ? `\n  ${error}` : ''}`);
});

console.log(`${chosen.length} chosen and ${drawn} drawn, ${expressions.length} of them distinct: ${JSON.stringify(count)}`);
for (const { name, accepts, seen } of rules) console.log(`  ${String(seen).padStart(5)} only ${accepts}: ${name}`);
const idle = rules.filter(({ seen }) => seen === 0).map(({ name }) => `explained, but never seen: ${name}`);
const lopsided = Math.min(count.both, count.neither) < expressions.length / 5 ? ['too few are accepted, or too few refused, to tell'] : [];
const failures = [...unexplained, ...idle, ...lopsided];
for (const failure of failures.slice(0, 60)) console.log(failure);
if (failures.length > 0) {
  console.log(`${failures.length} findings`);
  process.exit(1);
}
