// Draws LogQL at random: expressions of every construct, and the same with a word lost, doubled, swapped or put in.

/** A generator of numbers in [0, 1) that gives the same for the same seed (mulberry32). */
export function numbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const NAMES = ['app', 'env', 'level', 'status', 'took', 'size', 'addr', 'a_1', '__error__', 'path'];
const TEXTS = ['"x"', '`y`', '""', '"a.*"', '`(?P<n>\\\\w+)`', '"<a> - <b>"', '"{{.level}}"', '"10.0.0.0/8"'];
const REGEXES = ['"x"', '"a.*"', '`b+|c`', '"(?i)d"'];
const NUMBERS = ['0', '1', '5', '0.99', '1e3', '.5', '200'];
const DURATIONS = ['5s', '1m', '1h30m', '250ms', '1d', '2w', '1.5h'];
const SIZES = ['1B', '20KB', '1.5MiB', '3GB'];
const RECORD_RANGES = ['count_over_time', 'rate', 'bytes_over_time', 'bytes_rate', 'absent_over_time'];
const NUMBER_RANGES = ['sum_over_time', 'avg_over_time', 'min_over_time', 'max_over_time', 'first_over_time',
  'last_over_time', 'stddev_over_time', 'stdvar_over_time', 'rate', 'rate_counter', 'absent_over_time'];
const GROUPED_RANGES = ['avg_over_time', 'min_over_time', 'max_over_time', 'first_over_time', 'last_over_time',
  'stddev_over_time', 'stdvar_over_time'];
const AGGREGATES = ['sum', 'avg', 'min', 'max', 'count', 'stddev', 'stdvar'];
const STRAY = ['{', '}', '(', ')', '[', ']', ',', '|', '=', '!=', '|=', '|~', '>', 'or', 'and', 'by', 'on', 'json',
  'unwrap', 'offset', 'bool', '5m', '1', '"x"', 'app', 'rate', 'sum', '+', '^', '--strict', 'ip', 'group_left'];

export class Draw {
  constructor(seed) {
    this.next = numbers(seed);
  }

  below(n) {
    return Math.floor(this.next() * n);
  }

  chance(share) {
    return this.next() < share;
  }

  of(list) {
    return list[this.below(list.length)];
  }

  /** Words of an expression, and maybe an accident to them. */
  expression() {
    const words = this.chance(0.5) ? this.logs() : this.metric(3);
    return this.join(this.chance(0.55) ? words : this.accident(words));
  }

  join(words) {
    const tight = this.chance(0.3);
    const word = /[\w:.]$/;
    return words.reduce((text, next) => {
      const apart = !tight || (word.test(text) && /^[\w:.]/.test(next)) || text.endsWith('-');
      return text === '' ? next : text + (apart ? ' ' : '') + next;
    }, '');
  }

  accident(words) {
    const found = words.slice();
    for (let left = 1 + this.below(2); left > 0; left -= 1) {
      const at = this.below(found.length);
      const kind = this.below(4);
      if (kind === 0) found.splice(at, 1);
      else if (kind === 1) found.splice(at, 0, this.of(STRAY));
      else if (kind === 2) found.splice(at, 0, found[at] ?? 'x');
      else if (at + 1 < found.length) [found[at], found[at + 1]] = [found[at + 1], found[at]];
    }
    return found;
  }

  several(most, separator, item) {
    const words = item();
    for (let left = this.below(most); left > 0; left -= 1) words.push(separator, ...item());
    return words;
  }

  matcher() {
    const op = this.of(['=', '!=', '=~', '!~']);
    return [this.of(NAMES), op, this.of(op.endsWith('~') ? REGEXES : TEXTS)];
  }

  selector() {
    const words = ['{', 'service', '=', '"s"'];
    for (let left = this.below(3); left > 0; left -= 1) words.push(',', ...this.matcher());
    return [...words, '}'];
  }

  logs() {
    const words = this.selector();
    for (let left = this.below(4); left > 0; left -= 1) words.push(...this.stage());
    return words;
  }

  stage() {
    const names = () => [this.of(NAMES)];
    const choice = () => (this.chance(0.5) ? names() : this.matcher());
    switch (this.below(12)) {
      case 0: case 1: return this.lineFilter();
      case 2: return ['|', 'json', ...(this.chance(0.5) ? this.several(3, ',', () => this.extraction()) : [])];
      case 3: return ['|', 'logfmt', ...(this.chance(0.3) ? ['--strict'] : []), ...(this.chance(0.3) ? ['--keep-empty'] : []),
        ...(this.chance(0.5) ? this.several(3, ',', () => this.extraction()) : [])];
      case 4: return ['|', 'pattern', '"<a> - <b>"'];
      case 5: return ['|', 'regexp', '`(?P<n>x)`'];
      case 6: return ['|', this.of(['unpack', 'decolorize'])];
      case 7: return ['|', 'line_format', this.of(TEXTS)];
      case 8: return ['|', 'label_format', this.of(['a', 'b']), '=', this.chance(0.5) ? this.of(['c', 'd']) : this.of(TEXTS)];
      case 9: return ['|', this.of(['drop', 'keep']), ...this.several(3, ',', choice)];
      default: return ['|', ...this.labelFilter(2)];
    }
  }

  extraction() {
    return this.chance(0.5) ? [this.of(NAMES)] : [this.of(NAMES), '=', this.of(TEXTS)];
  }

  lineFilter() {
    const op = this.of(['|=', '!=', '|~', '!~', '|>', '!>']);
    const ip = op.endsWith('=') && this.chance(0.3);
    const needle = () => (ip ? ['ip', '(', '"10.0.0.0/8"', ')'] : [this.of(op.endsWith('~') ? REGEXES : TEXTS)]);
    return [op, ...this.several(ip ? 1 : 3, 'or', needle)];
  }

  labelFilter(depth) {
    if (depth > 0 && this.chance(0.4)) {
      const inner = [...this.labelFilter(depth - 1), this.of(['and', 'or', ',']), ...this.labelFilter(depth - 1)];
      return this.chance(0.4) ? ['(', ...inner, ')'] : inner;
    }
    const op = this.of(['=', '==', '!=', '>', '>=', '<', '<=']);
    switch (this.below(5)) {
      case 0: return [this.of(NAMES), op, ...(this.chance(0.1) ? ['-'] : []), this.of(NUMBERS)];
      case 1: return [this.of(NAMES), op, this.of(DURATIONS)];
      case 2: return [this.of(NAMES), op, this.of(SIZES)];
      case 3: return [this.of(NAMES), this.of(['=', '!=']), 'ip', '(', '"10.0.0.0/8"', ')'];
      default: return this.matcher();
    }
  }

  names() {
    return this.chance(0.1) ? ['(', ')'] : ['(', ...this.several(3, ',', () => [this.of(NAMES)]), ')'];
  }

  grouping() {
    return [this.of(['by', 'without']), ...this.names()];
  }

  unwrap() {
    const label = this.of(NAMES);
    const words = this.chance(0.5) ? ['|', 'unwrap', label]
      : ['|', 'unwrap', this.of(['duration', 'duration_seconds', 'bytes']), '(', label, ')'];
    return this.chance(0.3) ? [...words, '|', ...this.labelFilter(1)] : words;
  }

  range() {
    const unwrapped = this.chance(0.5);
    const window = ['[', this.of(DURATIONS), ']', ...(this.chance(0.2) ? ['offset', this.of(DURATIONS)] : [])];
    const selector = this.selector();
    const pipeline = [];
    for (let left = this.below(3); left > 0; left -= 1) pipeline.push(...this.stage());
    if (unwrapped) pipeline.push(...this.unwrap());
    const body = this.chance(0.7) ? [...selector, ...pipeline, ...window]
      : this.chance(0.5) ? [...selector, ...window, ...pipeline] : ['(', ...selector, ...pipeline, ')', ...window];
    const grouped = unwrapped && this.chance(0.3);
    if (grouped && this.chance(0.3)) {
      return ['quantile_over_time', '(', '0.99', ',', ...body, ')', ...this.grouping()];
    }
    const op = this.of(grouped ? GROUPED_RANGES : unwrapped ? NUMBER_RANGES : RECORD_RANGES);
    return [op, '(', ...body, ')', ...(grouped ? this.grouping() : [])];
  }

  aggregate(depth) {
    const inner = this.series(depth - 1);
    if (this.chance(0.2)) {
      return [this.of(['topk', 'bottomk', 'approx_topk', 'sort', 'sort_desc'])].flatMap((op) =>
        [op, '(', ...(op.startsWith('sort') ? [] : ['5', ',']), ...inner, ')']);
    }
    const op = this.of(AGGREGATES);
    switch (this.below(3)) {
      case 0: return [op, '(', ...inner, ')'];
      case 1: return [op, ...this.grouping(), '(', ...inner, ')'];
      default: return [op, '(', ...inner, ')', ...this.grouping()];
    }
  }

  /** Series rather than a number. */
  series(depth) {
    switch (depth > 0 ? this.below(6) : this.below(2)) {
      case 0: return this.range();
      case 1: return this.chance(0.3) ? ['vector', '(', this.of(NUMBERS), ')'] : this.range();
      case 2: return ['label_replace', '(', ...this.series(depth - 1), ',', '"to"', ',', '"$1"', ',', '"from"', ',', '"(.*)"', ')'];
      case 3: return ['(', ...this.binary(depth), ')'];
      default: return this.aggregate(depth);
    }
  }

  binary(depth) {
    const op = this.of(['+', '-', '*', '/', '%', '^', '==', '!=', '>', '>=', '<', '<=', 'and', 'or', 'unless']);
    const set = /^[a-z]/.test(op);
    const compares = /[=<>]/.test(op);
    const matching = this.chance(0.3) ? [this.of(['on', 'ignoring']), '(', this.of(['a', 'b']), ')'] : [];
    if (matching.length > 0 && !set && this.chance(0.4)) {
      matching.push(this.of(['group_left', 'group_right']), ...(this.chance(0.5) ? ['(', 'c', ')'] : ['(', ')']));
    }
    const right = !set && this.chance(0.3) ? [this.of(NUMBERS)] : this.series(depth - 1);
    return [...this.series(depth - 1), op, ...(compares && this.chance(0.3) ? ['bool'] : []), ...matching, ...right];
  }

  metric(depth) {
    return this.chance(0.3) ? this.binary(depth) : this.series(depth);
  }
}
