// The page at /ui/. Text from the server only ever becomes text: never markup, an address or a script.

/** Where the server is, below whatever path a proxy has put before it. */
const ROOT = new URL('../', document.baseURI);
const SECOND = 1000;
const [KEPT_ROWS, SHOWN_STREAMS, SHOWN_RESULTS, SHOWN_CHARACTERS, SAMPLE] = [300, 200, 500, 2000, 50];
/** How often the tail is painted at most: each time moves all of its rows. */
const PAINTED = 50;
/** How long a subscription may be silent: the server sends an empty line more often than that. */
const SILENT = 60 * SECOND;
const $ = (id) => document.getElementById(id);
const on = (id, event, listener) => $(id).addEventListener(event, listener);

// ---- Elements
/** Makes an element; `properties` are attributes, functions are listeners, `children` are texts and nodes. */
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === 'function') element.addEventListener(key, value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
function draw(name, properties, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const cell = (kind, ...children) => make('td', { role: 'cell', class: kind }, ...children);

/** What does not change costs nothing. */
function say(element, text) { if (element.textContent !== text) element.textContent = text; }
function set(element, name, value) { if (element.getAttribute(name) !== value) element.setAttribute(name, value); }
function fail(element, error) { element.hidden = !error; say(element, error ? error.message : ''); }

/** Keeps a list of elements: one for each item, known by its name. */
function keep(list, known, items, create, update) {
  const names = new Set(items.map((item) => item.name));
  for (const [name, { root }] of known) if (!names.has(name)) { root.remove(); known.delete(name); }
  const focused = document.activeElement;
  let next = list.firstElementChild;
  for (const item of items) {
    if (!known.has(item.name)) known.set(item.name, create(item.name));
    const parts = known.get(item.name);
    if (parts.root === next) next = next.nextElementSibling;
    else list.insertBefore(parts.root, next);
    update(parts, item);
  }
  // What is moved loses it.
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

// ---- Words
const whole = new Intl.NumberFormat('en');
const number = (value) => whole.format(value);
const rate = (perSecond) => (perSecond >= 10 || perSecond === 0 ? number(Math.round(perSecond)) : perSecond.toFixed(1));
const lately = (rates) => rates.slice(-5).reduce((sum, each) => sum + each, 0) / 5;
const lasted = (time) => (time < SECOND ? `${Math.round(time)} ms` : `${(time / SECOND).toFixed(1)} s`);
const some = (count, what) => `${number(count)} ${what}${count === 1 ? '' : 's'}`;
const byName = (a, b) => (a.name < b.name ? -1 : 1);
function bytes(count) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit++) count /= 1024;
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}
function ago(time, now) {
  const seconds = Math.max(0, (Date.parse(now) - Date.parse(time)) / SECOND);
  if (!(seconds < 172800)) return time.slice(0, 10);
  if (seconds < 2) return 'now';
  if (seconds < 120) return `${Math.floor(seconds)} s ago`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

// ---- The key
const KEY = 'stride-key';
let key = sessionStorage.getItem(KEY);
function ask(why) {
  key = null;
  sessionStorage.removeItem(KEY);
  stopLong();
  fail($('key-error'), why && { message: why });
  $('key').value = '';
  state('', 'No key yet');
  if (!$('key-dialog').open) $('key-dialog').showModal();
  $('key').focus();
}

on('key-dialog', 'cancel', (event) => event.preventDefault());
on('key-form', 'submit', async (event) => {
  event.preventDefault();
  key = $('key').value.trim();
  if (!key) return;
  try {
    await look();
  } catch (error) {
    // One that is refused has been asked for again.
    if (key) fail($('key-error'), error);
    return;
  }
  sessionStorage.setItem(KEY, key);
  $('key').value = '';
  $('key-dialog').close();
  route();
});
on('forget', 'click', () => { sessionStorage.removeItem(KEY); location.reload(); });

// ---- Requests
const WRONG_KEY = 'This server does not know that key. It is the one that the server was started with, as --secret-key '
  + 'or STRIDE_LOCAL_SECRET_KEY.';
const OPEN_KEY = 'That is an open key, which may only write events. To read them, the page needs the secret key.';

/** Sends a request. Without `credentials: 'omit'` a browser would open a login dialog for a wrong key. */
async function call(path, { method = 'GET', body, signal } = {}) {
  const credentials = String.fromCharCode(...new TextEncoder().encode(`${key}:`));
  const headers = { Authorization: `Basic ${btoa(credentials)}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const options = { method, body, signal, headers, credentials: 'omit', cache: 'no-store', redirect: 'error' };
  const response = await fetch(new URL(path, ROOT), options).catch((error) => {
    throw error.name === 'AbortError' ? error : new Error('The server cannot be reached.');
  });
  if (response.ok) return response;
  const text = await response.text();
  let message = `The server responded with ${response.status}.`;
  try { message = JSON.parse(text).message ?? message; } catch { /* A proxy may respond with something else. */ }
  if (response.status === 401) ask(WRONG_KEY);
  if (response.status === 403) ask(message.startsWith('an open key') ? OPEN_KEY : message);
  throw Object.assign(new Error(message), { status: response.status });
}
const send = (method, path, value) => call(path, { method, body: JSON.stringify(value) });

/** Waits, unless `signal` ends it before. */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

// ---- The overview, once a second while somebody looks
let overview = null;
let lookTimer = 0;
let failures = 0;
function state(kind, text) { $('status').className = kind; say($('status'), text); }
async function look() {
  const response = await call('overview', { signal: AbortSignal.timeout(10 * SECOND) });
  overview = await response.json();
  failures = 0;
  state('live', 'Live');
  show();
}
async function keepLooking() {
  const start = performance.now();
  if (key && document.hidden) state('', 'Paused while hidden');
  if (key && !document.hidden && !$('key-dialog').open) {
    await look().catch(() => { failures += 1; if (key) state('bad', 'Not reached, trying again'); });
  }
  const took = performance.now() - start;
  // An overview of very much is asked for less often.
  let rest = failures ? Math.min(2 * SECOND, 250 * 2 ** failures) : Math.max(SECOND - took, 4 * took);
  if (!failures && overview?.streams.length === 0) rest = Math.min(rest, SECOND / 2);
  clearTimeout(lookTimer);
  lookTimer = setTimeout(keepLooking, rest);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) return keepLooking();
  state('', 'Paused while hidden');
  follow.hide?.();
});

// ---- Views
const VIEWS = ['empty', 'streams', 'tail', 'sql', 'processes', 'server'];
let view = 'streams';
/** The stream or process that the tail shows. */
let source = null;
function route() {
  const [, what = 'streams', name] = location.hash.match(/^#\/([a-z]+)(?:\/(\w+))?$/) ?? [];
  stopLong();
  source = name && ['tail', 'changes'].includes(what) ? { name, process: what === 'changes' } : null;
  view = source ? 'tail' : ['sql', 'processes', 'server'].includes(what) ? what : 'streams';
  if (view === 'sql' && name) $('query').value = `SELECT *\nFROM ${name}\nORDER BY "$timestamp" DESC\nLIMIT 100`;
  const current = source ? (source.process ? 'processes' : 'streams') : view;
  for (const link of document.querySelectorAll('nav a')) {
    link.ariaCurrent = link.getAttribute('href') === `#/${current}` ? 'page' : null;
  }
  show();
  document.title = `${source?.name ?? $(`${view}-title`).textContent} · Stride`;
  if (key && source) follow();
  if (key && view === 'sql') listSaved();
}

addEventListener('hashchange', () => {
  route();
  // For screen readers, which otherwise would not notice.
  document.querySelector('section:not([hidden]) h2')?.focus();
});

function show() {
  const isEmpty = view === 'streams' && overview?.streams.length === 0;
  for (const name of VIEWS) $(name).hidden = name !== (isEmpty ? 'empty' : view);
  if (source) {
    say($('tail-title'), source.process ? `Changes of ${source.name}` : source.name);
    $('tail-query').href = `#/sql/${source.name}`;
    $('tail-query').hidden = source.process;
  }
  if (overview) ({ streams: showStreams, tail: showTailNote, processes: showProcesses, server: showServer })[view]?.();
}

addEventListener('keydown', (event) => {
  const field = { streams: 'search', tail: 'filter', sql: 'query' }[view];
  const isTyping = event.target.closest?.('input, textarea, select, dialog');
  if (event.key !== '/' || isTyping || !field || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  $(field).focus();
});

// ---- An empty server
$('command').textContent = `curl -u "$STRIDE_API_KEY:" -H 'Content-Type: application/json' \\\n`
  + `  -d '{"bojack": "horseman"}' ${new URL('v1/collect/mystream', ROOT)}`;

on('copy', 'click', async () => {
  try {
    await navigator.clipboard.writeText($('command').textContent);
    say($('empty-note'), 'Copied.');
  } catch {
    getSelection().selectAllChildren($('command'));
    say($('empty-note'), 'The browser does not let the page copy: the command is selected, press Ctrl+C.');
  }
});
on('test-event', 'click', async () => {
  try {
    await send('POST', 'v1/collect/test_events', { text: 'Hello from the page', user_agent: navigator.userAgent });
    await look();
  } catch (error) {
    say($('empty-note'), error.message);
  }
});

// ---- Streams
/** The row of each stream that is shown, by name. */
const rows = new Map();
function streamRow(name) {
  const line = draw('path', {});
  const spark = draw('svg', { class: 'spark', viewBox: '0 0 119 30', preserveAspectRatio: 'none', role: 'img' }, line);
  const link = make('a', { href: `#/tail/${name}` }, name);
  const root = make('tr', { role: 'row' }, cell('', link), cell('number'), cell('number'), cell('', spark), cell(''));
  return { root, line, spark };
}
function showStreams() {
  const wanted = $('search').value.trim().toLowerCase();
  const found = overview.streams.filter((stream) => stream.name.toLowerCase().includes(wanted));
  found.sort((a, b) => b.recent - a.recent || (a.last_seen < b.last_seen) - (a.last_seen > b.last_seen) || byName(a, b));
  keep($('streams-rows'), rows, found.slice(0, SHOWN_STREAMS), streamRow, updateStream);
  const rest = Math.max(0, found.length - SHOWN_STREAMS);
  say($('streams-note'), found.length === 0 ? 'No stream has such a name.'
    : `${some(overview.streams.length, 'stream')}${rest ? `; ${number(rest)} more are found by searching` : ''}.`);
}
function updateStream({ root: { cells }, line, spark }, { count, last_seen, rates, recent }) {
  say(cells[1], number(count));
  say(cells[2], rate(rates ? lately(rates) : recent / 120));
  say(cells[4], ago(last_seen, overview.now));
  set(cells[4], 'title', last_seen);
  const most = rates ? Math.max(...rates) : 0;
  const points = (rates ?? []).map((each, second) => `${second} ${(29 - (each / most) * 26).toFixed(1)}`);
  set(line, 'd', most ? `M-2 32L${points.join('L')}L121 32Z` : 'M0 29H119');
  set(spark, 'aria-label', `At most ${number(most)} in a second of the last two minutes`);
}

on('search', 'input', () => overview && showStreams());

// ---- The tail of a stream, or the changes of a process
/** What has come and is not shown yet, the oldest first; no more than fits. */
let waiting = [];
let frame = 0;
let isPaused = false;
let came = 0;
/** The last gap, which at thousands of events a second is a row for a moment only. */
let lastMark = '';
let filter = '';

/** Ends the one long request of this tab. */
let long = null;
function stopLong() { long?.abort(); long = follow.hide = null; }
function beginLong() {
  stopLong();
  long = new AbortController();
  return long;
}

/**
 * A browser has six connections for a server, over all its tabs: at most four of them are for long requests, so that the
 * others can be used. Returns what gives the place back.
 */
async function place(signal) {
  while (navigator.locks) {
    for (let n = 0; n < 4; n++) {
      const release = await new Promise((resolve) => {
        const take = (lock) => (lock ? new Promise((done) => resolve(done)) : resolve(null));
        navigator.locks.request(`${ROOT}long-${n}`, { ifAvailable: true }, take);
      });
      if (release) return release;
    }
    tailState('', 'Waiting: four other tabs are live');
    await pause(SECOND, signal);
  }
  return () => {};
}
function tailState(kind, text) { $('tail-state').className = `badge ${kind}`; say($('tail-state'), text); }

/** Follows the source for as long as it is shown, and comes back after whatever goes wrong. */
async function follow() {
  const { signal } = beginLong();
  const path = `v1/${source.process ? 'process' : 'collect'}/${source.name}/subscribe`;
  const all = $('all').checked;
  clearTail();
  let attempt = 0;
  /** Since when nothing comes, and why. */
  let gap = null;
  /** A position that the server knows, and how many events have come after it. */
  let from = null;
  while (!signal.aborted) {
    const connection = new AbortController();
    const both = AbortSignal.any([signal, connection.signal]);
    let release = null;
    try {
      if (document.hidden) await shown(signal);
      follow.hide = () => {
        gap ??= { start: performance.now(), why: 'the tab was hidden' };
        from = null;
        connection.abort();
      };
      tailState('', 'Connecting');
      release = await place(both);
      const after = from ? `?after=${encodeURIComponent(from.position)}&skip=${from.skip}` : '';
      const response = await call(path + (all ? after : `?sample=${SAMPLE}`), { signal: both });
      if (gap) mark(gap, response, from !== null);
      const position = response.headers.get('stride-position');
      from = position && { position, skip: 0 };
      gap = null;
      attempt = 0;
      tailState('live', 'Live');
      await read(response, from, connection);
    } catch (error) {
      if (error.status === 410) {
        from = null;
      } else if (error.status >= 400 && error.status < 500 && key) {
        tailState('bad', 'Ended');
        return add({ mark: error.message });
      }
    } finally {
      release?.();
    }
    if (signal.aborted) return;
    if (document.hidden) continue;
    gap ??= { start: performance.now(), why: 'the connection was lost' };
    tailState('bad', 'Not reached, trying again');
    await pause(Math.min(2 * SECOND, 200 * 2 ** attempt++) * (0.75 + Math.random() / 4), signal).catch(() => {});
    // What was sent in hours would take long to come, and only the end of it would be shown.
    if (performance.now() - gap.start > 60 * SECOND) from = null;
  }
}
function shown(signal) {
  tailState('', 'Paused while hidden');
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => document.hidden || resolve(), { signal });
    signal.addEventListener('abort', resolve, { once: true });
  });
}

/** Says what came of a gap. */
function mark({ start, why }, response, resumed) {
  const missed = Number(response.headers.get('stride-missed') ?? 0);
  const what = !resumed ? 'what came meanwhile is not shown'
    : missed ? `${some(missed, 'event')} can no longer be had` : 'nothing was missed';
  lastMark = `Reconnected: ${why} for ${lasted(performance.now() - start)}, and ${what}.`;
  add({ mark: lastMark });
  showTailNote();
}
async function read(response, from, connection) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let silence = 0;
  try {
    for (;;) {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENT);
      const { done, value } = await reader.read();
      if (done) return;
      const lines = value.split('\n');
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        if (line === '\r') continue;
        if (from) from.skip += 1;
        came += 1;
        if (!filter || line.toLowerCase().includes(filter)) add(line.trimEnd());
      }
    }
  } finally {
    clearTimeout(silence);
    reader.cancel().catch(() => {});
  }
}
function add(item) {
  waiting.push(item);
  // Trimmed now and then, rather than at each of thousands.
  if (waiting.length > 2 * KEPT_ROWS) waiting = waiting.slice(-KEPT_ROWS);
  if (!isPaused) paint();
}
function paint() {
  frame ||= setTimeout(() => requestAnimationFrame(showRows), PAINTED);
}

/** Shows what has come since the last frame, the newest first, in rows that are used again. */
function showRows() {
  frame = 0;
  if (isPaused) return;
  const list = $('tail-rows');
  const added = waiting.slice(-KEPT_ROWS).reverse();
  waiting = [];
  const fragment = document.createDocumentFragment();
  let spare = list.childElementCount + added.length - KEPT_ROWS;
  for (const item of added) {
    const row = (spare-- > 0 && list.lastElementChild) || make('li');
    const text = item.mark ?? item;
    set(row, 'class', item.mark ? 'mark' : '');
    row.textContent = text.length <= SHOWN_CHARACTERS ? text
      : `${text.slice(0, SHOWN_CHARACTERS)} … (${number(text.length)} characters)`;
    fragment.append(row);
  }
  list.prepend(fragment);
}
function clearTail() {
  waiting = [];
  came = 0;
  lastMark = '';
  $('tail-rows').replaceChildren();
  setPaused(false);
}
function setPaused(paused) {
  isPaused = paused;
  $('pause').setAttribute('aria-pressed', paused);
  say($('pause'), paused ? 'Go on' : 'Pause');
  if (!paused && waiting.length) paint();
  showTailNote();
}
function showTailNote() {
  const what = source?.process ? 'change' : 'event';
  const rates = !source?.process && overview?.streams.find(({ name }) => name === source?.name)?.rates;
  const sampled = rates && !$('all').checked && lately(rates) > SAMPLE;
  const share = sampled ? `, ${SAMPLE} of ${rate(lately(rates))} a second` : '';
  say($('tail-note'), isPaused ? `Paused. ${some(came, what)} came so far; the last ${KEPT_ROWS} are shown when you go on.`
    : `${came === 0 ? `Waiting for the next ${what}` : `${some(came, what)} came${share}; the last ${KEPT_ROWS} are kept`}. ${lastMark}`);
}

on('pause', 'click', () => setPaused(!isPaused));
on('filter', 'input', () => {
  filter = $('filter').value.toLowerCase();
  waiting = waiting.filter((item) => item.mark || item.toLowerCase().includes(filter));
  for (const row of [...$('tail-rows').children]) {
    if (row.className !== 'mark' && !row.textContent.toLowerCase().includes(filter)) row.remove();
  }
});
on('all', 'change', () => source && follow());
on('wrap', 'change', () => $('tail-rows').classList.toggle('wrap', $('wrap').checked));

// ---- SQL
/** Stands before the digits of a number that JavaScript would round, in a text that nobody else writes. */
const EXACT = `number-${Math.random().toString(36).slice(2)}-`;

/** Reads JSON; a number that would not be printed as it came is a text that begins with `EXACT`. */
function readExact(json) {
  return JSON.parse(json.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g,
    (part) => (part[0] === '"' || String(Number(part)) === part ? part : `"${EXACT}${part}"`)));
}
const isNumber = (value) => typeof value === 'number' || (typeof value === 'string' && value.startsWith(EXACT));
function written(value) {
  if (value === null || value === undefined) return 'NULL';
  if (typeof value === 'string') return value.startsWith(EXACT) ? value.slice(EXACT.length) : value;
  return JSON.stringify(value).replaceAll(new RegExp(`"${EXACT}([^"]*)"`, 'g'), '$1');
}

let result = [];
async function run() {
  const query = $('query').value.trim();
  if (!query) return;
  const { signal } = beginLong();
  const start = performance.now();
  fail($('sql-error'));
  $('cancel').disabled = false;
  say($('sql-note'), 'Running …');
  try {
    const response = await call('v1/analyze', { method: 'POST', body: JSON.stringify({ query }), signal });
    result = readExact(await response.text());
    const stale = response.headers.get('stride-stale');
    const first = result.length > SHOWN_RESULTS ? `; the first ${SHOWN_RESULTS} are shown` : '';
    const took = lasted(performance.now() - start);
    say($('sql-note'), `${some(result.length, 'row')} in ${took}${first}${stale ? `; from old rows of ${stale}` : ''}.`);
    showResult();
  } catch (error) {
    say($('sql-note'), signal.aborted ? `Cancelled after ${lasted(performance.now() - start)}.` : '');
    if (!signal.aborted) fail($('sql-error'), error);
  } finally {
    if (!long || long.signal === signal) $('cancel').disabled = true;
  }
}
function showResult() {
  const shown = result.slice(0, SHOWN_RESULTS);
  const columns = Object.keys(shown[0] ?? {});
  const numbers = columns.filter((column) => shown.some((row) => isNumber(row[column])));
  const kind = (column) => (numbers.includes(column) ? 'number' : '');
  const head = make('tr', {}, ...columns.map((column) => make('th', { scope: 'col', class: kind(column) }, column)));
  const body = shown.map((row) => make('tr', {}, ...columns.map((column) => (
    make('td', { class: row[column] === null ? `null ${kind(column)}` : kind(column) }, written(row[column]))))));
  $('result').hidden = false;
  $('result-table').replaceChildren(columns.length
    ? make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)) : make('p', { class: 'notice' }, 'No rows.'));
  choices($('across'), columns);
  choices($('up'), numbers, numbers.find((column) => column !== $('across').value));
  for (const shape of $('result').querySelectorAll('[name=shape]')) shape.disabled = shape.value !== 'table' && !numbers.length;
  if (!numbers.length) $('result').querySelector('[value=table]').checked = true;
  showShape();
}

/** Offers texts to choose from; what was chosen before stays chosen. */
function choices(select, texts, preferred = texts[0]) {
  const before = select.value;
  select.replaceChildren(...texts.map((text) => make('option', { value: text }, text)));
  select.value = texts.includes(before) ? before : preferred ?? '';
}
function showShape() {
  const shape = $('result').querySelector('[name=shape]:checked').value;
  $('result-table').hidden = shape !== 'table';
  $('result-chart').hidden = $('axes').hidden = shape === 'table';
  if (shape !== 'table') $('result-chart').replaceChildren(chart(shape, $('across').value, $('up').value));
}

/** Round numbers, four or so, with all of the others between them. */
function ticks(least, most) {
  const step = 10 ** Math.floor(Math.log10((most - least) / 4 || 1));
  const width = step * ([1, 2, 5].find((times) => (most - least) / (times * step) <= 5) ?? 10);
  const first = Math.floor(least / width);
  const last = Math.max(Math.ceil(most / width), first + 1);
  return Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * width).toPrecision(12)));
}

/** Places from 0 to 1: as numbers or times if all are, and else in equal steps. */
function spread(values) {
  const isTime = values.every((value) => /^\d{4}-\d\d-\d\d/.test(value));
  let places = values.map((value) => (isTime ? Date.parse(value) : isNumber(value) ? Number(written(value)) : NaN));
  if (!places.every(Number.isFinite)) places = values.map((_, n) => n);
  const [least, most] = [Math.min(...places), Math.max(...places)];
  return places.map((place) => (most > least ? (place - least) / (most - least) : 0.5));
}
function chart(shape, across, up) {
  const bars = shape === 'bars';
  const [width, height, left, right, top, bottom] = [$('result-chart').clientWidth || 960, 380, 78, 18, 16, 44];
  const shown = result.slice(0, SHOWN_RESULTS);
  const values = shown.map((row) => (isNumber(row[up]) ? Number(written(row[up])) : NaN));
  const finite = [...values.filter(Number.isFinite), ...(bars ? [0] : [])];
  const scale = ticks(Math.min(...finite), Math.max(...finite));
  const [low, high] = [scale[0], scale.at(-1)];
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
  const step = (width - left - right) / shown.length;
  const places = bars ? null : spread(shown.map((row) => row[across]));
  const x = (n) => (bars ? left + step * (n + 0.5) : left + (width - left - right) * places[n]);
  const parts = scale.flatMap((value) => [
    draw('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    draw('text', { x: left - 10, y: y(value) + 4, 'text-anchor': 'end' }, number(value)),
  ]);
  const order = [...values.keys()].filter((n) => Number.isFinite(values[n])).sort((a, b) => x(a) - x(b));
  const dot = (n) => `${x(n).toFixed(1)} ${y(values[n]).toFixed(1)}`;
  if (!bars) parts.push(draw('path', { class: 'line', d: `M${order.map(dot).join('L')}` }));
  else parts.push(...order.map((n) => draw('rect', {
    class: 'bar', x: x(n) - step * 0.38, width: step * 0.76, rx: Math.min(3, step / 8),
    y: Math.min(y(values[n]), y(0)), height: Math.abs(y(values[n]) - y(0)),
  }, draw('title', {}, `${written(shown[n][across])}: ${written(shown[n][up])}`))));
  // As many labels as there is room for; of times, what is not the same in all of them.
  const texts = shown.map((row) => written(row[across]));
  const isDay = /^(\d{4}-\d\d-\d\d)T([\d:]{8})/;
  const sameDay = texts.every((text) => isDay.test(text) && text.slice(0, 10) === texts[0].slice(0, 10));
  let free = 0;
  for (const n of order) {
    const text = sameDay ? texts[n].match(isDay)[2] : texts[n];
    const label = text.length > 14 ? `${text.slice(0, 13)}…` : text;
    const half = label.length * 3.6;
    const at = Math.min(Math.max(x(n), half + 4), width - half - 4);
    if (at - half < free) continue;
    free = at + half + 12;
    parts.push(draw('text', { x: at, y: height - 16, 'text-anchor': 'middle' }, label));
  }
  const label = `${up} by ${across}, ${some(shown.length, 'row')}`;
  return draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label }, ...parts);
}

on('run', 'click', run);
on('cancel', 'click', stopLong);
on('query', 'keydown', (event) => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  run();
});
on('result', 'change', showShape);
addEventListener('resize', () => view === 'sql' && !$('result-chart').hidden && showShape());

/** Does something with saved queries, and says so if it fails. */
function withSaved(work) {
  return async () => {
    fail($('sql-error'));
    await work().catch((error) => key && fail($('sql-error'), error));
  };
}
const listSaved = withSaved(() => offerSaved($('saved').value));
async function offerSaved(chosen) {
  const names = await (await call('v1/analyze')).json();
  const first = make('option', { value: '' }, names.length ? 'Saved queries' : 'No saved queries');
  $('saved').replaceChildren(first, ...names.map((name) => make('option', { value: name }, name)));
  $('saved').value = names.includes(chosen) ? chosen : '';
  $('unsave').disabled = !$('saved').value;
}

on('saved', 'change', withSaved(async () => {
  const name = $('saved').value;
  $('unsave').disabled = !name;
  if (name) $('query').value = (await (await call(`v1/analyze/${name}`)).json()).query;
}));
on('save', 'click', withSaved(async () => {
  const name = await question('Save this query under which name? One of the same name is replaced.', 'Save', $('saved').value);
  if (!name) return;
  await send('PUT', `v1/analyze/${name}`, { query: $('query').value });
  await offerSaved(name);
  say($('sql-note'), `Saved as ${name}.`);
}));
on('unsave', 'click', withSaved(async () => {
  const name = $('saved').value;
  if (!await question(`Delete the saved query ${name}?`, 'Delete')) return;
  await call(`v1/analyze/${name}`, { method: 'DELETE' });
  await offerSaved('');
}));

/** Asks a question: returns whether it was affirmed, or the name if one is asked for. */
function question(text, yes, name) {
  const asks = name !== undefined;
  say($('question-text'), text);
  say($('yes'), yes);
  $('answer-label').hidden = !asks;
  $('answer').required = asks;
  $('answer').value = name ?? '';
  $('question').returnValue = '';
  $('question').showModal();
  $(asks ? 'answer' : 'no').focus();
  return new Promise((resolve) => {
    const answer = () => resolve($('question').returnValue === 'yes' && (asks ? $('answer').value : true));
    $('question').addEventListener('close', answer, { once: true });
  });
}
on('question-form', 'submit', (event) => { event.preventDefault(); $('question').close('yes'); });
on('no', 'click', () => $('question').close(''));

// ---- Processes
/** The card of each process, by name. */
const cards = new Map();
function processCard(name) {
  const changes = make('a', { class: 'button', href: `#/changes/${name}`, 'aria-label': `Changes of ${name}` }, 'Changes');
  const remove = { type: 'button', class: 'danger', 'aria-label': `Delete ${name}`, click: () => deleteProcess(name) };
  const head = make('div', { class: 'row' }, make('h3', {}, name),
    make('span', { class: 'row' }, changes, make('button', remove, 'Delete')));
  const query = make('pre', { tabindex: '0', 'aria-label': 'Query' });
  const [facts, problem] = [make('dl', { class: 'facts' }), make('p', { class: 'error' })];
  return { facts, query, problem, root: make('li', {}, head, query, facts, problem) };
}

/** Shows names and what they stand for. */
function showFacts(list, facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined);
  const names = shown.map(([name]) => name).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...shown.map(([name]) => make('div', {}, make('dt', {}, name), make('dd'))));
  }
  shown.forEach(([, value], n) => say(list.children[n].lastChild, typeof value === 'string' ? value : written(value)));
}
function showProcesses() {
  keep($('process-list'), cards, overview.processes, processCard, updateProcess);
  say($('processes-note'), cards.size ? ''
    : 'A process is a query that is kept up to date while events come. There is none yet.');
}
function updateProcess({ facts, query, problem }, process) {
  say(query, process.query);
  showFacts(facts, [
    ['Rows', number(process.rows)], ['Mode', process.mode], ['Why', process.why],
    ['Step', process.step_ms && `${process.step_ms / SECOND} s`],
    ['Filled', process.filling && `${number(process.filling.given)} of ${number(process.filling.of)} events`], ['Rows go after', process.ttl && `${process.ttl.duration} (${process.ttl.column})`],
    ['Events', number(process.events)], ['Skipped', number(process.skipped)],
    ['Subscribers', number(process.subscribers)], ['Stale since', process.stale ? process.stale_since : null],
  ]);
  fail(problem, process.last_error && { message: `Last error: ${process.last_error}` });
}
function openForm(open) {
  $('process-form').hidden = !open;
  $('new-process').setAttribute('aria-expanded', open);
  $(open ? 'process-name' : 'new-process').focus();
}

on('new-process', 'click', () => openForm($('process-form').hidden));
on('process-close', 'click', () => openForm(false));
on('process-form', 'submit', async (event) => {
  event.preventDefault();
  fail($('process-error'));
  $('create').disabled = true;
  try {
    const process = { query: $('process-query').value, action: { type: 'MATERIALIZE' } };
    await send('POST', `v1/process/${$('process-name').value}`, process);
    $('process-form').reset();
    openForm(false);
    await look();
  } catch (error) {
    fail($('process-error'), error);
  } finally {
    $('create').disabled = false;
  }
});

async function deleteProcess(name) {
  fail($('processes-error'));
  if (!await question(`Delete the process ${name}? Its rows are gone then, and its subscriptions end.`, 'Delete')) return;
  try {
    await call(`v1/process/${name}`, { method: 'DELETE' });
    await look();
    $('new-process').focus();
  } catch (error) {
    fail($('processes-error'), error);
  }
}

// ---- The server
const heardRows = new Map();
function showServer() {
  showFacts($('server-facts'), [
    ['Version', overview.version], ['Database', bytes(overview.bytes)],
    ['Kept', overview.kept ? 'in a file' : 'until the server ends'],
    ['Streams', number(overview.streams.length)], ['Processes', number(overview.processes.length)],
    ['Subscribers', number(overview.subscribers)], ['Missed by them', number(overview.missed)],
  ]);
  const heard = [...overview.streams, ...overview.processes].filter(({ subscribers, missed }) => subscribers || missed);
  heard.sort((a, b) => b.missed - a.missed || b.subscribers - a.subscribers || byName(a, b));
  const create = (name) => ({ root: make('tr', { role: 'row' }, cell('', name), cell('number'), cell('number')) });
  keep($('subscribers'), heardRows, heard.slice(0, SHOWN_STREAMS), create, ({ root: { cells } }, { subscribers, missed }) => {
    say(cells[1], number(subscribers));
    say(cells[2], number(missed));
  });
  say($('subscribers-note'), heard.length ? '' : 'Nobody has subscribed to anything.');
}

// ---- Go
route();
if (!key) ask();
keepLooking();
