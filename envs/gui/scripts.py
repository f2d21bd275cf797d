"""What runs inside a page: starting an episode, letting time pass, reading the page, finding where to click."""

from __future__ import annotations

from .browser import START_TIME

MAX_ELEMENTS = 256

# Installed in a page once after it is loaded. `hook` is what a page of one's own offers; pages of MiniWoB++ have `core`.
# Elements are numbered anew in every episode; a number stands for one element and is never given again in the episode.
INSTALL = """(() => {
if (globalThis.__polyathlon) return;
const api = globalThis.__polyathlon = {};
const own = () => typeof core === 'undefined' ? globalThis.polyathlon : null;
let refs = new Map(), numbers = new WeakMap(), next = 1, listed = new Set();
const INPUTS = ['text','password','email','number','search','tel','url','date','time','month','week','datetime-local','color','range',''];
const clean = text => (text || '').replace(/\\s+/g, ' ').trim();
const skipped = new Set(['reward-display', 'sync-task-cover', 'click-canvas', 'query', 'attention-canvas']);
const shapes = new Set(['rect', 'circle', 'ellipse', 'polygon', 'polyline', 'path', 'line', 'text', 'g', 'image']);

api.hasHook = () => typeof core !== 'undefined' || (globalThis.polyathlon && typeof globalThis.polyathlon.reset === 'function'
  && typeof globalThis.polyathlon.status === 'function');

// a text, in which nothing is that cannot be written; pages that give arrays a toJSON of their own do not change it
api.text = value => {
  const kept = Array.prototype.toJSON;
  if (kept) delete Array.prototype.toJSON;
  try { return JSON.stringify(value === undefined ? null : value, (_, one) => typeof one === 'string' ? one.toWellFormed() : one); }
  finally { if (kept) Array.prototype.toJSON = kept; }
};

async function pass(time) {
  if (!time) return;
  const clock = globalThis.__pwClock;
  if (clock) await clock.controller.runFor(time);
  else await new Promise(done => setTimeout(done, time));
}

api.start = async (seed, settle, time) => {
  if (globalThis.__pwClock) await globalThis.__pwClock.controller.setSystemTime(START_TIME);
  refs = new Map(); numbers = new WeakMap(); next = 1; listed = new Set();
  const hook = own();
  if (hook) { await hook.reset(seed); }
  else {
    if (!core.cover_div) core.startEpisode();
    document.activeElement && document.activeElement.blur && document.activeElement.blur();
    core.EPISODE_MAX_TIME = 1e7;
    core.endEpisode(0);
    Math.seedrandom(seed);
    core.startEpisodeReal();
    for (let i = 0; i < 100 && !WOB_TASK_READY; i++) await pass(20);
  }
  await pass(settle);
};

// pictures load in real time, and what they fill has no size before
api.pictures = async () => {
  const wanted = new Set([...document.images].map(image => image.src));
  for (const el of document.querySelectorAll('body *')) for (const part of [null, '::before', '::after']) {
    const style = getComputedStyle(el, part);
    for (const text of [style.backgroundImage, style.content, style.listStyleImage])
      for (const match of (text || '').matchAll(/url\\("([^"]+)"\\)/g)) wanted.add(match[1]);
  }
  for (const round of [0, 1]) await Promise.all([...wanted].map(src => { const image = new Image(); image.src = src; return image.decode().catch(() => null); }));
};

api.warm = async (seed, time) => {
  for (const k of [0, 1]) { await api.start(String(seed + k), 0); await api.pictures(); await pass(time); }
};

api.pass = pass;

// events of scrolling come with a frame, and real ones go on while the page's clock stands
const real = name => ((globalThis.__pwClock && __pwClock.builtins[name]) || globalThis[name]).bind(globalThis);
const frame = () => new Promise(done => real('requestAnimationFrame')(() => real('setTimeout')(done, 0)));

api.status = () => {
  const hook = own();
  if (hook) {
    const state = hook.status() || {};
    const reward = Number(state.reward === undefined || state.reward === null ? 0 : state.reward);
    if (!Number.isFinite(reward)) throw new Error(`status().reward must be a finite number, got ${state.reward}`);
    return {done: !!state.done, reward: reward, timed: reward,
      goal: clean(String(state.goal === undefined ? document.title : state.goal)), reason: state.reason ? String(state.reason) : null};
  }
  return {done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL, timed: WOB_REWARD_GLOBAL, goal: clean(core.getUtterance()),
    reason: WOB_REWARD_REASON ? String(WOB_REWARD_REASON) : null};
};

const isShown = el => {
  const style = getComputedStyle(el);
  return style.visibility !== 'hidden' && style.display !== 'none' && style.opacity !== '0';
};

function kindOf(el) {
  const tag = el.tagName.toLowerCase(), role = el.getAttribute('role');
  const type = tag === 'input' ? (el.getAttribute('type') || '').toLowerCase() : '';
  if (tag === 'select') return 'list';
  if (tag === 'textarea' || el.isContentEditable) return 'field';
  if (tag === 'input' && (type === 'checkbox' || type === 'radio')) return 'box';
  if (tag === 'input' && ['submit', 'button', 'image', 'reset'].includes(type)) return 'button';
  if (tag === 'input') return 'field';
  const holder = el.closest('[role=tab]');
  if (role === 'tab' || (holder && (tag === 'a' || holder === el))) return 'tab';
  if (tag === 'button' || role === 'button') return 'button';
  if (tag === 'a' || role === 'link' || el.classList.contains('alink')) return 'link';
  return tag;
}

function directText(el) {
  let text = '';
  for (const node of el.childNodes) if (node.nodeType === 3) text += node.data + ' ';
  return clean(text);
}

function labelOf(el) {
  const aria = el.getAttribute('aria-label') || el.getAttribute('placeholder') || el.getAttribute('title');
  if (aria) return clean(aria);
  if (el.labels && el.labels.length) { const text = clean(el.labels[0].textContent); if (text) return text; }
  const stops = ['INPUT', 'TEXTAREA', 'SELECT', 'BUTTON', 'BR', 'HR'];
  for (const way of ['previousSibling', 'nextSibling'])
    for (let level = 0, at = el; level < 3 && at && at !== document.body; level++, at = at.parentElement) {
      if (level && at.querySelectorAll('input, textarea, select').length > 1) break;
      for (let node = at[way]; node; node = node[way]) {
        if (node.nodeType === 1 && (stops.includes(node.tagName) || node.querySelector('input, textarea, select, button'))) break;
        const text = clean(node.textContent);
        if (text && text.length <= 60) return text.replace(/[:*]$/, '').trim();
      }
    }
  return clean(el.getAttribute('name') || (el.id && el.id.length > 3 ? el.id : ''));
}

function textOf(el, kind) {
  if (kind === 'field') return labelOf(el);
  if (kind === 'list') return labelOf(el);
  if (kind === 'box') {
    if (el.labels && el.labels.length) return clean(el.labels[0].textContent);
    const after = el.nextSibling;
    return clean(after ? after.textContent : '') || labelOf(el);
  }
  if (el.tagName === 'INPUT') return clean(el.value) || labelOf(el);
  if (kind === 'button' || kind === 'link' || kind === 'tab') return clean(el.textContent) || clean(el.getAttribute('aria-label') || el.title || '');
  return directText(el);
}

const shapeOf = el => {
  if (!(el instanceof SVGElement) || !shapes.has(el.tagName)) return null;
  const fill = el.getAttribute('fill') || getComputedStyle(el).fill;
  return {fill: fill, attributes: Object.fromEntries([...el.attributes].filter(a => !['style', 'fill'].includes(a.name)).slice(0, 12)
    .map(a => [a.name, String(a.value).slice(0, 80)]))};
};

function isWorth(el, kind, text) {
  if (kind === 'tab' && el.tagName === 'LI' && el.querySelector('a')) return false;
  if (['button', 'link', 'field', 'box', 'list', 'tab'].includes(kind)) return true;
  if (el.tagName === 'LABEL' && el.control) return false;
  if (el.closest('button, select, label') && !(el instanceof SVGElement)) return !!(el.tagName === 'LABEL' && text);
  const link = el.closest('a, .alink');
  if (link && link !== el) return false;
  if (text) return true;
  if (el instanceof SVGElement) return shapes.has(el.tagName) && el.tagName !== 'g';
  if (el.children.length === 0 && el.tagName !== 'BR' && el.tagName !== 'HR' && el.tagName !== 'SCRIPT' && el.tagName !== 'STYLE')
    return !!(el.id || el.className || el.getAttribute('style') || el.tagName === 'IMG' || el.tagName === 'CANVAS');
  return false;
}

api.number = el => {
  let ref = numbers.get(el);
  if (ref === undefined) { ref = next++; numbers.set(el, ref); refs.set(ref, el); }
  return ref;
};

// another document of the same episode goes on counting: a number of the page before names nothing here
api.from = first => { next = Math.max(next, first); };

function walk(el, found, depth) {
  for (const child of el.children) {
    if (found.length >= MAX_ELEMENTS) return;
    if (skipped.has(child.id) || child.tagName === 'SCRIPT' || child.tagName === 'STYLE' || child.tagName === 'OPTION') continue;
    const box = child.getBoundingClientRect(), shown = isShown(child);
    if (shown && box.width > 0 && box.height > 0) {
      const kind = kindOf(child), text = textOf(child, kind);
      if (isWorth(child, kind, text)) {
        const one = {ref: api.number(child), tag: kind, text: text.slice(0, 300), box: [box.left, box.top, box.width, box.height].map(x => Math.round(x * 10) / 10)};
        if (kind === 'field') one.value = child.isContentEditable ? clean(child.textContent) : String(child.value);
        if (kind === 'box') one.checked = !!child.checked;
        if (['field', 'box', 'button'].includes(kind)) one.type = child.tagName === 'INPUT' ? (child.getAttribute('type') || 'text').replace('input', 'text').toLowerCase() : child.tagName.toLowerCase();
        if (kind === 'list') { one.options = [...child.options].slice(0, 64).map(o => clean(o.textContent)); one.multiple = child.multiple;
          one.chosen = [...child.selectedOptions].map(o => clean(o.textContent)); }
        if (child.disabled) one.disabled = true;
        if (document.activeElement === child) one.focused = true;
        const names = [child.id, typeof child.className === 'string' ? child.className : ''].filter(Boolean).join(' ');
        if (names) one.names = names.slice(0, 100);
        const shape = shapeOf(child); if (shape) one.shape = shape;
        else if (!text && !['field', 'box', 'list'].includes(kind)) { const fill = getComputedStyle(child).backgroundColor;
          if (fill !== 'rgba(0, 0, 0, 0)') one.shape = {fill: fill, attributes: {}}; }
        found.push(one);
      }
    }
    if (shown || child.children.length) walk(child, found, depth + 1);
  }
}

api.elements = () => { const found = []; if (document.body) walk(document.body, found, 0);
  listed = new Set(found.map(one => one.ref)); return found; };

api.look = () => ({...api.status(), url: location.href, elements: api.elements()});

const isAt = (el, x, y) => {
  if (x < 0 || y < 0 || x >= innerWidth || y >= innerHeight) return false;
  const hit = document.elementFromPoint(x, y);
  return !!hit && (hit === el || el.contains(hit) || (hit.tagName === 'LABEL' && hit.control === el));
};

function pointIn(el) {
  const boxes = [...el.getClientRects()];
  for (const box of boxes)
    for (const parts of [2, 4, 6, 10]) for (let j = 1; j < parts; j++) for (let i = 1; i < parts; i++) {
      const x = box.left + box.width * i / parts, y = box.top + box.height * j / parts;
      if (isAt(el, x, y)) return [x, y];
    }
  // a sliver may look out beside what covers the rest
  for (const box of boxes) {
    const step = Math.max(1, Math.sqrt(box.width * box.height / 8000));
    for (let y = box.top + 0.5; y < box.bottom; y += step) for (let x = box.left + 0.5; x < box.right; x += step)
      if (isAt(el, x, y)) return [x, y];
  }
  return null;
}

// where to click so that the click is the element's: its centre may be covered by another
api.point = async (ref, wants, mayScroll) => {
  const el = refs.get(ref);
  if (!el || !listed.has(ref) || !el.isConnected) return {error: `there is no element [${ref}] on the page now`};
  if (el.disabled) return {error: `the element [${ref}] is disabled`};
  const kind = kindOf(el);
  if (wants && kind !== wants) return {error: `[${ref}] is no ${wants}`};
  let at = pointIn(el);
  if (!at && !mayScroll) return {scrolls: true};
  if (!at) { el.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'}); await frame(); at = pointIn(el); }
  if (!at) return {error: `the element [${ref}] is covered or hidden`};
  return {x: at[0], y: at[1], type: (el.getAttribute('type') || '').toLowerCase()};
};

api.clear = ref => { const el = refs.get(ref);
  if (el.isContentEditable) { const range = document.createRange(); range.selectNodeContents(el); getSelection().removeAllRanges(); getSelection().addRange(range); }
  else { el.focus(); if (el.select) el.select(); } };

api.assign = (ref, text) => { const el = refs.get(ref);
  const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  setter.call(el, text);
  if (el.value !== text) return {error: `the field [${ref}] does not take ${JSON.stringify(text)}`};
  el.dispatchEvent(new Event('input', {bubbles: true})); el.dispatchEvent(new Event('change', {bubbles: true})); return {}; };

api.select = (ref, text) => {
  const el = refs.get(ref);
  if (!el || !listed.has(ref) || !el.isConnected) return {error: `there is no element [${ref}] on the page now`};
  if (el.tagName !== 'SELECT') return {error: `[${ref}] is no list`};
  if (el.disabled) return {error: `the element [${ref}] is disabled`};
  const option = [...el.options].find(o => clean(o.textContent) === clean(text)) || [...el.options].find(o => o.value === text);
  if (!option) return {error: `the list [${ref}] has no option ${JSON.stringify(text)}`};
  el.focus();
  if (el.multiple) option.selected = !option.selected; else el.value = option.value, el.selectedIndex = option.index;
  el.dispatchEvent(new Event('input', {bubbles: true})); el.dispatchEvent(new Event('change', {bubbles: true})); return {}; };

api.scroll = async (dx, dy) => {
  const able = el => (el.scrollHeight > el.clientHeight + 1 || el.scrollWidth > el.clientWidth + 1) &&
    (el.tagName === 'TEXTAREA' || el.tagName === 'SELECT' || ['auto', 'scroll'].includes(getComputedStyle(el).overflowY) || ['auto', 'scroll'].includes(getComputedStyle(el).overflowX));
  let el = document.activeElement;
  while (el && !able(el)) el = el.parentElement;
  if (!el) el = [...document.body.querySelectorAll('*')].find(x => able(x) && isShown(x));
  (el || document.scrollingElement).scrollBy({left: dx, top: dy, behavior: 'instant'}); await frame(); return {}; };
})()""".replace("START_TIME", str(START_TIME)).replace("MAX_ELEMENTS", str(MAX_ELEMENTS))
START = "async (seed, settle) => { await __polyathlon.start(seed, settle); return __polyathlon.look(); }"
WARM = "async time => { await __polyathlon.warm(1, time); }"
PASS_AND_LOOK = (
    "async (time, first) => { await __polyathlon.pass(time); __polyathlon.from(first); return __polyathlon.look(); }"
)
HAS_HOOK = "() => __polyathlon.hasHook()"
