// The page at /ui/. Text from the server only ever becomes text: never markup, an address or a script.

/** Where the server is, below whatever path a proxy has put before it. */
const ROOT = new URL('../', document.baseURI);
const SECOND = 1000;
const KEPT_ROWS = 300;
const SHOWN_STREAMS = 200;
const SHOWN_RESULTS = 500;
const SHOWN_CHARACTERS = 2000;
const SAMPLE = 50;
/** How long a subscription may be silent, in milliseconds: the server sends an empty line more often than that. */
const SILENT = 60 * SECOND;

const $ = (id) => document.getElementById(id);

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

/** Sets a text, if it is another one: what does not change costs nothing. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fail(element, error) {
  element.hidden = !error;
  say(element, error ? error.message : '');
}

function cell(kind, ...children) {
  return make('td', kind ? { role: 'cell', class: kind } : { role: 'cell' }, ...children);
}

// ---- Words

const whole = new Intl.NumberFormat('en');
const number = (value) => whole.format(value);

function rate(perSecond) {
  return perSecond >= 10 || perSecond === 0 ? number(Math.round(perSecond)) : perSecond.toFixed(1);
}

function bytes(count) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit++) count /= 1024;
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function ago(time, now) {
  const seconds = Math.max(0, (Date.parse(now) - Date.parse(time)) / SECOND);
  if (!(seconds < 86400 * 2)) return time.slice(0, 10);
  if (seconds < 2) return 'now';
  if (seconds < 120) return `${Math.floor(seconds)} s ago`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

const lasted = (milliseconds) => `${(milliseconds / SECOND).toFixed(1)} s`;
const some = (count, what) => `${number(count)} ${what}${count === 1 ? '' : 's'}`;

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

$('key-dialog').addEventListener('cancel', (event) => event.preventDefault());
$('key-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const given = $('key').value.trim();
  if (!given) return;
  key = given;
  try {
    await look();
  } catch (error) {
    // A key that is refused has been asked for again.
    if (key) fail($('key-error'), error);
    return;
  }
  sessionStorage.setItem(KEY, key);
  $('key').value = '';
  $('key-dialog').close();
  route();
});
$('forget').addEventListener('click', () => ask());

// ---- Requests

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function authorization() {
  const credentials = new TextEncoder().encode(`${key}:`);
  return `Basic ${btoa(String.fromCharCode(...credentials))}`;
}

/** Sends a request. Without `credentials: 'omit'` a browser would open a login dialog of its own for a wrong key. */
async function call(path, { method = 'GET', body, signal } = {}) {
  const headers = { Authorization: authorization() };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const response = await fetch(new URL(path, ROOT), {
    method, body, signal, headers, credentials: 'omit', cache: 'no-store', redirect: 'error',
  }).catch((error) => {
    throw error.name === 'AbortError' ? error : new Error('The server cannot be reached.');
  });
  if (response.ok) return response;
  const text = await response.text();
  let message = `The server responded with ${response.status}.`;
  try {
    message = JSON.parse(text).message ?? message;
  } catch { /* A proxy may respond with something else. */ }
  if (response.status === 401) {
    ask('This server does not know that key. It is the one that the server was started with, as --secret-key or STRIDE_LOCAL_SECRET_KEY.');
  } else if (response.status === 403) {
    ask(message.startsWith('an open key')
      ? 'That is an open key, which may only write events. To read them, the page needs the secret key.'
      : message);
  }
  throw new Refused(response.status, message);
}

const send = (method, path, value) => call(path, { method, body: JSON.stringify(value) });

/** Waits, unless `signal` ends it before. */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

// ---- The overview, once a second while somebody looks

let overview = null;
let lookTimer = 0;
let failures = 0;

function state(kind, text) {
  $('status').className = kind;
  say($('status'), text);
}

async function look() {
  const timeout = AbortSignal.timeout(10 * SECOND);
  const response = await call('overview', { signal: timeout });
  overview = await response.json();
  failures = 0;
  state('live', 'Live');
  show();
}

async function keepLooking() {
  clearTimeout(lookTimer);
  const start = performance.now();
  if (key && !document.hidden && !$('key-dialog').open) {
    try {
      await look();
    } catch {
      failures += 1;
      if (key) state('bad', 'Not reached, trying again');
    }
  }
  const took = performance.now() - start;
  const rest = failures ? Math.min(2 * SECOND, 250 * 2 ** failures) : Math.max(SECOND - took, 4 * took, 250);
  clearTimeout(lookTimer);
  // Timers of a hidden tab go on, slowly: it is looked at again at once when it is shown.
  lookTimer = setTimeout(keepLooking, overview?.streams.length === 0 && !failures ? Math.min(rest, SECOND / 2) : rest);
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    state('', 'Paused while hidden');
    follow.hide?.();
  } else {
    keepLooking();
  }
});

// ---- Views

const VIEWS = ['empty', 'streams', 'tail', 'sql', 'processes', 'server'];
let view = 'streams';
/** The stream or process that the tail shows. */
let source = null;

function route() {
  const [, what = 'streams', name] = location.hash.match(/^#\/([a-z]+)(?:\/(\w+))?$/) ?? [];
  stopLong();
  source = null;
  if (name && (what === 'tail' || what === 'changes')) {
    view = 'tail';
    source = { name, process: what === 'changes' };
  } else {
    view = VIEWS.includes(what) && what !== 'tail' && what !== 'empty' ? what : 'streams';
  }
  if (view === 'sql' && name) $('query').value = `SELECT *\nFROM ${name}\nORDER BY "$timestamp" DESC\nLIMIT 100`;
  const current = source ? (source.process ? 'processes' : 'streams') : view;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `#/${current}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  show();
  document.title = `${source?.name ?? $(`${view}-title`).textContent} · Stride`;
  if (!key) return;
  if (source) follow();
  if (view === 'sql') listSaved();
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
  if (!overview) return;
  if (view === 'streams') showStreams();
  if (view === 'tail') showTailNote();
  if (view === 'processes') showProcesses();
  if (view === 'server') showServer();
}

// ---- An empty server

$('command').textContent = [
  `curl -u "$STRIDE_API_KEY:" -H 'Content-Type: application/json' \\`,
  `  -d '{"bojack": "horseman"}' ${new URL('v1/collect/mystream', ROOT)}`,
].join('\n');

$('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText($('command').textContent);
    say($('empty-note'), 'Copied.');
  } catch {
    getSelection().selectAllChildren($('command'));
    say($('empty-note'), 'The browser does not let the page copy: the command is selected, press Ctrl+C.');
  }
});

$('test-event').addEventListener('click', async () => {
  try {
    await send('POST', 'v1/collect/test_events', { text: 'Hello from the page', user_agent: navigator.userAgent });
    say($('empty-note'), 'Sent to test_events.');
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
  const row = make('tr', { role: 'row' },
    cell('', make('a', { href: `#/tail/${name}` }, name)), cell('number'), cell('number'), cell('', spark), cell());
  return { row, line, spark, cells: row.cells };
}

function showStreams() {
  const wanted = $('search').value.trim().toLowerCase();
  const found = overview.streams.filter((stream) => stream.name.toLowerCase().includes(wanted));
  found.sort((a, b) => b.recent - a.recent || (a.last_seen < b.last_seen) - (a.last_seen > b.last_seen)
    || (a.name < b.name ? -1 : 1));
  const shown = found.slice(0, SHOWN_STREAMS);
  const names = new Set(shown.map((stream) => stream.name));
  for (const [name, { row }] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  let next = $('streams-rows').firstElementChild;
  for (const stream of shown) {
    const known = rows.get(stream.name) ?? streamRow(stream.name);
    rows.set(stream.name, known);
    // Only what has to move is moved, as the focus would be lost.
    if (known.row === next) next = next.nextElementSibling;
    else $('streams-rows').insertBefore(known.row, next);
    updateStream(known, stream);
  }
  const rest = found.length - shown.length;
  say($('streams-note'), found.length === 0 ? 'No stream has such a name.'
    : `${some(overview.streams.length, 'stream')}${rest ? `; ${number(rest)} more are found by searching` : ''}.`);
}

function updateStream({ line, spark, cells }, { count, last_seen, rates, recent }) {
  const latest = rates ? rates.slice(-5).reduce((sum, each) => sum + each, 0) / 5 : recent / 120;
  say(cells[1], number(count));
  say(cells[2], rate(latest));
  say(cells[4], ago(last_seen, overview.now));
  cells[4].title = last_seen;
  const most = rates ? Math.max(...rates) : 0;
  const points = (rates ?? []).map((each, second) => `${second} ${(29 - (each / most) * 26).toFixed(1)}`);
  const path = most ? `M-2 32L${points.join('L')}L121 32Z` : 'M0 29H119';
  if (line.getAttribute('d') !== path) line.setAttribute('d', path);
  const label = `At most ${number(most)} in a second of the last two minutes`;
  if (spark.getAttribute('aria-label') !== label) spark.setAttribute('aria-label', label);
}

$('search').addEventListener('input', () => overview && showStreams());
addEventListener('keydown', (event) => {
  const isTyping = event.target.closest?.('input, textarea, select, dialog');
  const field = { streams: 'search', tail: 'filter', sql: 'query' }[view];
  if (event.key === '/' && !isTyping && field && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    $(field).focus();
  }
});

// ---- The tail of a stream, or the changes of a process

/** What has come and is not shown yet, the oldest first; no more than fits. */
let waiting = [];
let frame = 0;
let isPaused = false;
let came = 0;
let filter = '';

/** The one long request of this tab, and how to end it. */
let long = null;

function stopLong() {
  long?.abort();
  long = null;
  follow.hide = null;
}

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
        navigator.locks.request(`${ROOT}long-${n}`, { ifAvailable: true },
          (lock) => (lock ? new Promise((done) => resolve(done)) : resolve(null)));
      });
      if (release) return release;
    }
    tailState('', 'Waiting: four other tabs are live');
    await pause(SECOND, signal);
  }
  return () => {};
}

function tailState(kind, text) {
  $('tail-state').className = `badge ${kind}`;
  say($('tail-state'), text);
}

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
      if (signal.aborted) return;
      follow.hide = () => {
        gap ??= { start: performance.now(), why: 'the tab was hidden' };
        from = null;
        connection.abort();
      };
      tailState('', 'Connecting');
      release = await place(both);
      const at = all && from ? `?after=${encodeURIComponent(from.position)}&skip=${from.skip}` : '';
      const response = await call(path + (all ? at : `?sample=${SAMPLE}`), { signal: both });
      if (gap) mark(gap, response, at !== '');
      gap = null;
      const position = response.headers.get('stride-position');
      from = position && { position, skip: 0 };
      tailState('live', 'Live');
      attempt = 0;
      await read(response, from, connection);
    } catch (error) {
      if (signal.aborted || !key) return;
      if (error.status === 410) from = null;
      else if (error.status >= 400 && error.status < 500) {
        tailState('bad', 'Ended');
        add({ mark: error.message });
        return;
      }
    } finally {
      release?.();
    }
    if (signal.aborted) return;
    if (document.hidden) continue;
    gap ??= { start: performance.now(), why: 'the connection was lost' };
    tailState('bad', 'Not reached, trying again');
    try {
      await pause(Math.min(2 * SECOND, 200 * 2 ** attempt++) * (0.75 + Math.random() / 4), signal);
    } catch {
      return;
    }
    // What was sent in hours would take long to come, and only the end of it would be shown.
    if (performance.now() - gap.start > 60 * SECOND) from = null;
  }
}

function shown(signal) {
  tailState('', 'Paused while hidden');
  return new Promise((resolve) => {
    const look = () => document.hidden || resolve();
    document.addEventListener('visibilitychange', look, { signal });
    signal.addEventListener('abort', resolve, { once: true });
  });
}

/** Says what came of a gap. */
function mark({ start, why }, response, resumed) {
  const missed = Number(response.headers.get('stride-missed') ?? 0);
  const what = !resumed ? 'what came meanwhile is not shown'
    : missed ? `${some(missed, 'event')} could not be sent again` : 'nothing was missed';
  add({ mark: `Reconnected: ${why} for ${lasted(performance.now() - start)}, and ${what}.` });
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
      const lines = value.split('\r\n');
      lines[0] = rest + lines[0];
      rest = lines.pop();
      // A delimiter that came in two pieces.
      if (rest.length > 1 && rest.endsWith('\n') && lines.length === 0) lines.push(...rest.split('\r\n'), rest = '');
      for (const line of lines) {
        if (line === '') continue;
        if (from) from.skip += 1;
        came += 1;
        if (!filter || line.toLowerCase().includes(filter)) add(line);
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
  if (!frame && !isPaused) frame = requestAnimationFrame(showRows);
}

/** Shows what has come since the last frame, in rows that are used again. */
function showRows() {
  frame = 0;
  const list = $('tail-rows');
  const added = waiting.slice(-KEPT_ROWS);
  waiting = [];
  const fragment = document.createDocumentFragment();
  let spare = list.childElementCount + added.length - KEPT_ROWS;
  for (const item of added.reverse()) {
    const row = spare-- > 0 && list.lastElementChild ? list.lastElementChild : document.createElement('li');
    fill(row, item);
    fragment.append(row);
  }
  list.prepend(fragment);
}

function fill(row, item) {
  const kind = item.mark ? 'mark' : '';
  if (row.className !== kind) row.className = kind;
  const text = item.mark ?? item;
  row.textContent = text.length > SHOWN_CHARACTERS
    ? `${text.slice(0, SHOWN_CHARACTERS)} … (${number(text.length)} characters)` : text;
}

function clearTail() {
  waiting = [];
  came = 0;
  $('tail-rows').replaceChildren();
  setPaused(false);
  showTailNote();
}

function setPaused(paused) {
  isPaused = paused;
  $('pause').setAttribute('aria-pressed', paused);
  say($('pause'), paused ? 'Go on' : 'Pause');
  if (!paused && waiting.length && !frame) frame = requestAnimationFrame(showRows);
}

function showTailNote() {
  const what = source?.process ? 'change' : 'event';
  const stream = !source?.process && overview?.streams.find((stream) => stream.name === source?.name);
  const perSecond = stream?.rates ? stream.rates.slice(-5).reduce((sum, each) => sum + each, 0) / 5 : 0;
  const sampled = !$('all').checked && perSecond > SAMPLE ? `, ${SAMPLE} of ${rate(perSecond)} a second` : '';
  say($('tail-note'), isPaused ? `Paused. ${some(came, what)} came so far; the last ${KEPT_ROWS} are shown when you go on.`
    : came === 0 ? `Waiting for the next ${what}.` : `${some(came, what)} came${sampled}; the last ${KEPT_ROWS} are kept.`);
}

$('pause').addEventListener('click', () => {
  setPaused(!isPaused);
  showTailNote();
});
$('filter').addEventListener('input', () => {
  filter = $('filter').value.toLowerCase();
  waiting = waiting.filter((item) => item.mark || item.toLowerCase().includes(filter));
  for (const row of [...$('tail-rows').children]) {
    if (row.className !== 'mark' && !row.textContent.toLowerCase().includes(filter)) row.remove();
  }
});
$('all').addEventListener('change', () => source && follow());
$('wrap').addEventListener('change', () => $('tail-rows').classList.toggle('wrap', $('wrap').checked));

// ---- SQL

/** Stands before the digits of a number that JavaScript would round, in a text that nobody else writes. */
const EXACT = `number-${Math.random().toString(36).slice(2)}-`;

/** Reads JSON; a number that would not be printed as it came is a text that begins with `EXACT`. */
function readExact(json) {
  return JSON.parse(json.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g,
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
  const { signal } = beginLong();
  const start = performance.now();
  const text = $('query').value.trim();
  if (!text) return;
  fail($('sql-error'));
  $('cancel').disabled = false;
  say($('sql-note'), 'Running …');
  try {
    const response = await call('v1/analyze', { method: 'POST', body: JSON.stringify({ query: text }), signal });
    const stale = response.headers.get('stride-stale');
    result = readExact(await response.text());
    const shown = Math.min(result.length, SHOWN_RESULTS);
    say($('sql-note'), `${some(result.length, 'row')} in ${lasted(performance.now() - start)}`
      + `${shown < result.length ? `; the first ${number(shown)} are shown` : ''}`
      + `${stale ? `; from old rows of ${stale}` : ''}.`);
    showResult();
  } catch (error) {
    const isOver = error.name === 'AbortError';
    say($('sql-note'), isOver ? `Cancelled after ${lasted(performance.now() - start)}.` : '');
    if (!isOver) fail($('sql-error'), error);
  } finally {
    if (!long || long.signal === signal) $('cancel').disabled = true;
  }
}

function showResult() {
  $('result').hidden = false;
  const shown = result.slice(0, SHOWN_RESULTS);
  const columns = Object.keys(shown[0] ?? {});
  const numbers = columns.filter((column) => shown.some((row) => isNumber(row[column])));
  const head = make('tr', {}, ...columns.map((column) => make('th', { scope: 'col' }, column)));
  const body = shown.map((row) => make('tr', {}, ...columns.map((column) => {
    const value = row[column];
    return make('td', { class: value === null ? 'null' : isNumber(value) ? 'number' : '' }, written(value));
  })));
  $('result-table').replaceChildren(columns.length
    ? make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)) : make('p', { class: 'notice' }, 'No rows.'));
  choices($('across'), columns);
  choices($('up'), numbers, numbers.find((column) => column !== $('across').value));
  for (const shape of document.querySelectorAll('[name=shape]')) shape.disabled = shape.value !== 'table' && !numbers.length;
  if (!numbers.length) document.querySelector('[name=shape][value=table]').checked = true;
  showShape();
}

/** Offers texts to choose from; what was chosen before stays chosen. */
function choices(select, texts, preferred = texts[0]) {
  const before = select.value;
  select.replaceChildren(...texts.map((text) => make('option', { value: text }, text)));
  select.value = texts.includes(before) ? before : preferred ?? '';
}

function showShape() {
  const shape = document.querySelector('[name=shape]:checked').value;
  $('result-table').hidden = shape !== 'table';
  $('result-chart').hidden = $('axes').hidden = shape === 'table';
  if (shape !== 'table') $('result-chart').replaceChildren(chart(shape, $('across').value, $('up').value));
}

/** A scale of round numbers that holds all of them. */
function ticks(least, most) {
  const step = 10 ** Math.floor(Math.log10((most - least) / 4 || 1));
  const width = [1, 2, 5, 10].map((times) => times * step).find((width) => (most - least) / width <= 5) ?? step;
  const first = Math.floor(least / width);
  const last = Math.max(Math.ceil(most / width), first + 1);
  return Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * width).toPrecision(12)));
}

function chart(shape, across, up) {
  const [width, height, left, right, top, bottom] = [960, 380, 78, 18, 16, 44];
  const rows = result.slice(0, SHOWN_RESULTS);
  const values = rows.map((row) => (isNumber(row[up]) ? Number(written(row[up])) : NaN));
  const finite = values.filter(Number.isFinite);
  const scale = ticks(shape === 'bars' ? Math.min(0, ...finite) : Math.min(...finite), Math.max(shape === 'bars' ? 0 : -Infinity, ...finite));
  const [low, high] = [scale[0], scale.at(-1)];
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
  const places = shape === 'bars' ? null : spread(rows.map((row) => row[across]));
  const step = (width - left - right) / Math.max(rows.length, 1);
  const x = (n) => (places ? left + (width - left - right) * places[n] : left + step * (n + 0.5));
  const parts = scale.flatMap((value) => [
    draw('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    draw('text', { x: left - 10, y: y(value) + 4, 'text-anchor': 'end' }, number(value)),
  ]);
  if (shape === 'bars') {
    values.forEach((value, n) => Number.isFinite(value) && parts.push(draw('rect', {
      class: 'bar', x: x(n) - step * 0.38, width: step * 0.76, rx: Math.min(3, step / 8),
      y: Math.min(y(value), y(0)), height: Math.abs(y(value) - y(0)),
    }, draw('title', {}, `${written(rows[n][across])}: ${written(rows[n][up])}`))));
  } else {
    let path = '';
    const order = [...values.keys()].filter((n) => Number.isFinite(values[n]) && Number.isFinite(x(n))).sort((a, b) => x(a) - x(b));
    for (const n of order) path += `${path ? 'L' : 'M'}${x(n).toFixed(1)} ${y(values[n]).toFixed(1)}`;
    parts.push(draw('path', { class: 'line', d: path || 'M0 0' }));
  }
  // As many labels as there is room for.
  const every = Math.max(1, Math.ceil(rows.length / 8));
  rows.forEach((row, n) => {
    const text = written(row[across]);
    if (n % every === 0 && Number.isFinite(x(n))) {
      const label = text.length > 16 ? `${text.slice(0, 15)}…` : text;
      parts.push(draw('text', { x: Math.min(Math.max(x(n), left + 20), width - 50), y: height - 16, 'text-anchor': 'middle' }, label));
    }
  });
  const label = `${up} by ${across}, ${some(rows.length, 'row')}`;
  return draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label }, ...parts);
}

/** Places from 0 to 1: as numbers or times if all are, and else in equal steps. */
function spread(values) {
  const isTime = values.every((value) => /^\d{4}-\d\d-\d\d/.test(value));
  let places = values.map((value) => (isTime ? Date.parse(value) : isNumber(value) ? Number(written(value)) : NaN));
  if (!places.every(Number.isFinite)) places = values.map((_, n) => n);
  const [least, most] = [Math.min(...places), Math.max(...places)];
  return places.map((place) => (most > least ? (place - least) / (most - least) : 0.5));
}

$('run').addEventListener('click', run);
$('cancel').addEventListener('click', stopLong);
$('query').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});
for (const input of [...document.querySelectorAll('[name=shape]'), $('across'), $('up')]) input.addEventListener('change', showShape);

async function listSaved(chosen = $('saved').value) {
  try {
    const names = await (await call('v1/analyze')).json();
    $('saved').replaceChildren(make('option', { value: '' }, names.length ? 'Saved queries' : 'No saved queries'),
      ...names.map((name) => make('option', { value: name }, name)));
    $('saved').value = names.includes(chosen) ? chosen : '';
    $('unsave').disabled = !$('saved').value;
  } catch (error) {
    if (key) fail($('sql-error'), error);
  }
}

/** Does something with a saved query, and says so if it fails. */
async function withSaved(work) {
  fail($('sql-error'));
  try {
    await work();
  } catch (error) {
    fail($('sql-error'), error);
  }
}

$('saved').addEventListener('change', () => withSaved(async () => {
  const name = $('saved').value;
  $('unsave').disabled = !name;
  if (name) $('query').value = (await (await call(`v1/analyze/${name}`)).json()).query;
}));
$('save').addEventListener('click', () => withSaved(async () => {
  const name = await question('Save this query under which name? One of the same name is replaced.', 'Save', $('saved').value);
  if (!name) return;
  await send('PUT', `v1/analyze/${name}`, { query: $('query').value });
  await listSaved(name);
  say($('sql-note'), `Saved as ${name}.`);
}));
$('unsave').addEventListener('click', () => withSaved(async () => {
  const name = $('saved').value;
  if (!await question(`Delete the saved query ${name}?`, 'Delete')) return;
  await call(`v1/analyze/${name}`, { method: 'DELETE' });
  await listSaved();
}));

/** Asks a question: returns whether it was affirmed, or the name if one is asked for. */
function question(text, yes, name) {
  say($('question-text'), text);
  say($('yes'), yes);
  $('answer-label').hidden = name === undefined;
  $('answer').required = name !== undefined;
  $('answer').value = name ?? '';
  $('question').returnValue = '';
  $('question').showModal();
  (name === undefined ? $('no') : $('answer')).focus();
  return new Promise((resolve) => {
    $('question').addEventListener('close', () => {
      resolve($('question').returnValue === 'yes' && (name === undefined || $('answer').value));
    }, { once: true });
  });
}

$('question-form').addEventListener('submit', (event) => {
  event.preventDefault();
  $('question').close('yes');
});
$('no').addEventListener('click', () => $('question').close(''));

// ---- Processes

/** The card of each process, by name. */
const cards = new Map();

function processCard(name) {
  const facts = make('dl', { class: 'facts' });
  const parts = { facts, query: make('pre', { tabindex: '0', 'aria-label': 'Query' }), problem: make('p', { class: 'error' }) };
  parts.card = make('li', {},
    make('div', { class: 'row' }, make('h3', {}, name), make('span', { class: 'row' },
      make('a', { class: 'button', href: `#/changes/${name}`, 'aria-label': `Changes of ${name}` }, 'Changes'),
      make('button', { type: 'button', class: 'danger', 'aria-label': `Delete ${name}`, click: () => deleteProcess(name) }, 'Delete'))),
    parts.query, facts, parts.problem);
  return parts;
}

/** Shows names and what they stand for. */
function showFacts(list, facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined);
  const names = shown.map(([name]) => name).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...shown.map(([name]) => make('div', {}, make('dt', {}, name), make('dd', {}))));
  }
  shown.forEach(([, value], n) => say(list.children[n].lastChild, String(value)));
}

function showProcesses() {
  const names = new Set(overview.processes.map((process) => process.name));
  for (const [name, { card }] of cards) {
    if (!names.has(name)) {
      card.remove();
      cards.delete(name);
    }
  }
  let next = $('process-list').firstElementChild;
  for (const process of overview.processes) {
    const known = cards.get(process.name) ?? processCard(process.name);
    cards.set(process.name, known);
    if (known.card === next) next = next.nextElementSibling;
    else $('process-list').insertBefore(known.card, next);
    updateProcess(known, process);
  }
  say($('processes-note'), names.size ? '' : 'A process is a query that is kept up to date while events come. There is none yet.');
}

function updateProcess({ facts, query, problem }, process) {
  say(query, process.query);
  showFacts(facts, [
    ['Rows', number(process.rows)],
    ['Mode', process.mode],
    ['Why', process.why],
    ['Step', process.step],
    ['Filled', process.fill === undefined || process.fill === null ? null : written(process.fill)],
    ['Rows go after', process.ttl && `${process.ttl.duration} (${process.ttl.column})`],
    ['Events', number(process.events)],
    ['Skipped', number(process.skipped)],
    ['Subscribers', number(process.subscribers)],
    ['Stale since', process.stale ? process.stale_since ?? 'an earlier run' : null],
  ]);
  fail(problem, process.last_error && { message: `Last error: ${process.last_error}` });
}

function openForm(open) {
  $('process-form').hidden = !open;
  $('new-process').setAttribute('aria-expanded', open);
  if (open) $('process-name').focus();
  else $('new-process').focus();
}

$('new-process').addEventListener('click', () => openForm($('process-form').hidden));
$('process-close').addEventListener('click', () => openForm(false));
$('process-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const name = $('process-name').value;
  fail($('process-error'));
  $('create').disabled = true;
  try {
    await send('POST', `v1/process/${name}`, { query: $('process-query').value, action: { type: 'MATERIALIZE' } });
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
  if (!await question(`Delete the process ${name}? Its rows are gone then, and its subscriptions end.`, 'Delete')) return;
  try {
    await call(`v1/process/${name}`, { method: 'DELETE' });
    await look();
    $('new-process').focus();
  } catch (error) {
    say($('processes-note'), error.message);
  }
}

// ---- The server

function showServer() {
  showFacts($('server-facts'), [
    ['Version', overview.version],
    ['Database', bytes(overview.bytes)],
    ['Kept', overview.kept ? 'in a file' : 'until the server ends'],
    ['Streams', number(overview.streams.length)],
    ['Processes', number(overview.processes.length)],
    ['Subscribers', number(overview.subscribers)],
    ['Missed by them', number(overview.missed)],
  ]);
  const heard = [...overview.streams, ...overview.processes].filter(({ subscribers, missed }) => subscribers || missed);
  heard.sort((a, b) => b.missed - a.missed || b.subscribers - a.subscribers || (a.name < b.name ? -1 : 1));
  $('subscribers').replaceChildren(...heard.slice(0, SHOWN_STREAMS).map(({ name, subscribers, missed }) => make('tr', { role: 'row' },
    cell('', name), cell('number', number(subscribers)), cell('number', number(missed)))));
  say($('subscribers-note'), heard.length ? '' : 'Nobody has subscribed to anything.');
}

// ---- Go

route();
if (key) keepLooking();
else {
  ask();
  keepLooking();
}
