// SPDX-License-Identifier: MIT
'use strict';

const find = id => document.getElementById(id);
const drawing = new Drawing(find('draft'));
const RETRY_MS = [300, 1000, 2000, 5000];
const HINTS = {
  box: 'Drag a box around the whole object. The image stands still while you draw.',
  points: 'Tap on the object; tap beside it to exclude background. Tap a point again to remove it.',
  mask: 'Paint over the object. Use the eraser for corrections.',
};

let socket = null;
let failures = 0;
let status = null;      // newest status of the node
let received = false;   // whether an image has arrived since the page was loaded or the node was last missing
let shown = null;       // image on the screen: stamp, width, height, bitmap
let live = true;        // false: the image is frozen
let correcting = null;  // id
let waiting = null;     // pending request of the seed button
let requests = 0;
const promises = new Map();

// --- the connection

function connect() {
  socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/socket`);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    failures = 0;
    look();
  };
  socket.onmessage = event => typeof event.data === 'string' ? take(JSON.parse(event.data)) : takeImage(event.data);
  socket.onclose = () => {
    status = null;
    for (const answer of promises.values()) answer({ ok: false, text: 'The connection was lost before an answer arrived: check whether the command was executed.' });
    promises.clear();
    setTimeout(connect, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
    checkSignedIn();
    render();
  };
}

// A restarted server may have a new token.
async function checkSignedIn() {
  try {
    const answer = await fetch('app.js', { method: 'HEAD' });
    if (answer.status === 403) location.reload();
  } catch { /* the server is unreachable */ }
}

function tell(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function ask(message) {
  return new Promise(resolve => {
    if (socket.readyState !== WebSocket.OPEN) return resolve({ ok: false, text: 'Not connected.' });
    promises.set(++requests, resolve);
    tell({ ...message, request: requests });
  });
}

function look() {
  tell({ type: 'look', visible: document.visibilityState === 'visible', live });
}

function take(message) {
  if (message.type === 'status') {
    status = message;
    if (status.state === 'missing' || status.state === 'unconfigured') received = false;
    render();
  } else if (message.type === 'answer' && promises.has(message.request)) {
    promises.get(message.request)(message);
    promises.delete(message.request);
  }
}

async function takeImage(buffer) {
  try {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], { type: 'image/jpeg' }));
    if (live) show({ stamp: { sec: header.sec, nanosec: header.nanosec }, width: header.width, height: header.height, bitmap });
  } finally {
    tell({ type: 'shown' });  // requests the next image
  }
}

function show(image) {
  const first = !received || (shown && shown.gone);
  received = true;
  if (shown) shown.bitmap.close();
  shown = image;
  const picture = find('picture');
  [picture.width, picture.height] = [image.bitmap.width, image.bitmap.height];
  picture.getContext('2d').drawImage(image.bitmap, 0, 0);
  const stage = find('stage');
  stage.style.setProperty('--ratio', `${image.width} / ${image.height}`);
  stage.style.setProperty('--ratio-number', image.width / image.height);
  stage.dataset.stamp = `${image.stamp.sec}.${String(image.stamp.nanosec).padStart(9, '0')}`;
  drawing.resize(image.width, image.height);
  drawing.picture = image.bitmap;
  if (first) render();
}

// --- frozen and live

function freeze() {
  if (!live || !shown || shown.gone) return;
  live = false;
  hold(shown);
  look();
  render();
}

// Hold the image while the user draws; an image that is already gone is reported at once.
async function hold(image) {
  const answer = await ask({ type: 'hold', stamp: image.stamp });
  if (answer.gone && !live && shown === image) refuse(answer);
}

function goLive() {
  live = true;
  if (correcting !== null) find('name').value = '';
  correcting = null;
  waiting = null;
  drawing.clear();
  find('refusal').hidden = true;
  look();
  render();
}

function cancel() {
  find('name').value = '';
  goLive();
}

// --- drawing

const draft = find('draft');
let pointer = null;

function placeOf(event) {
  const frame = draft.getBoundingClientRect();
  const keep = (value, most) => Math.min(Math.max(value, 0), most);
  const x = keep((event.clientX - frame.left) / frame.width * shown.width, shown.width);
  const y = keep((event.clientY - frame.top) / frame.height * shown.height, shown.height);
  // A point is a pixel; a box corner may lie on the image's edge.
  return drawing.tool === 'points' ? [Math.min(x, shown.width - .01), Math.min(y, shown.height - .01)] : [x, y];
}

function touchOf(event, place) {
  drawing.touch = event.pointerType === 'touch' ? place : null;
}

draft.addEventListener('pointerdown', event => {
  if (!shown || pointer !== null || waiting || event.button > 0) return;
  freeze();
  if (live) return;
  pointer = event.pointerId;
  draft.setPointerCapture(pointer);
  const place = placeOf(event);
  touchOf(event, place);
  drawing.begin(place, (event.pointerType === 'touch' ? 24 : 12) * shown.width / draft.clientWidth);
  render();
});
draft.addEventListener('pointermove', event => {
  if (event.pointerId !== pointer) return;
  for (const part of event.getCoalescedEvents && event.getCoalescedEvents().length ? event.getCoalescedEvents() : [event]) {
    const place = placeOf(part);
    touchOf(part, place);
    drawing.drag(place);
  }
});
for (const kind of ['pointerup', 'pointercancel']) {
  draft.addEventListener(kind, event => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    drawing.end();
    render();
  });
}
new ResizeObserver(() => drawing.repaint()).observe(draft);

// --- buttons

function choose(group, attribute, apply) {
  for (const button of group.querySelectorAll('button')) {
    button.addEventListener('click', () => {
      for (const other of group.querySelectorAll('button')) other.setAttribute('aria-checked', String(other === button));
      apply(button.dataset[attribute]);
      drawing.repaint();
      render();
    });
  }
}
choose(document.querySelector('[aria-label="Tool"]'), 'tool', tool => { drawing.tool = tool; });
choose(find('sign'), 'sign', sign => { drawing.sign = Number(sign); });
choose(find('brush'), 'brush', brush => { drawing.brush = Number(brush); });
find('size').addEventListener('input', event => { drawing.size = Number(event.target.value); });
find('undo').addEventListener('click', () => { drawing.undo(); render(); });
find('freeze').addEventListener('click', () => live ? freeze() : goLive());
find('cancel').addEventListener('click', cancel);
find('new-object').addEventListener('click', () => { correcting = null; find('name').value = ''; render(); });
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && !live) cancel();
  if (event.key === 'z' && (event.ctrlKey || event.metaKey) && event.target.tagName !== 'INPUT') { drawing.undo(); render(); }
});
document.addEventListener('visibilitychange', look);

find('seed-form').addEventListener('submit', async event => {
  event.preventDefault();
  if (waiting || live || !drawing.complete) return;
  const seed = drawing.seed();
  if (!seed) return refuse({ text: 'Nothing is painted: paint over the object first.' });
  find('name').blur();  // closes the on-screen keyboard
  waiting = ask({ type: 'seed', stamp: shown.stamp, name: find('name').value.trim(), id: correcting || 0, ...seed });
  find('refusal').hidden = true;
  render();
  const answer = await waiting;
  waiting = null;
  if (!answer.ok) return refuse(answer);
  toast(`${correcting === null ? 'Seeded' : 'Corrected'} object ${answer.ids.join(', ')}.`);
  find('name').value = '';
  goLive();
});

function refuse(answer) {
  const refusal = find('refusal');
  refusal.textContent = sentence(answer.text);
  if (answer.gone) {
    shown.gone = true;  // cannot be drawn on; wait for the next image
    refusal.textContent = `The node no longer has this image: go live and try again. (${answer.text})`;
  }
  refusal.hidden = false;
  render();
}

find('reset').addEventListener('click', () => confirmReset(true));
find('confirm-no').addEventListener('click', () => confirmReset(false));
find('confirm-yes').addEventListener('click', async () => {
  confirmReset(false);
  report(await ask({ type: 'reset' }), 'All objects removed.');
});

function confirmReset(on) {
  find('confirm').hidden = !on;
  find('reset').dataset.asked = on ? 'yes' : '';
  render();
}

async function remove(id) {
  if (correcting === id) goLive();
  report(await ask({ type: 'remove', ids: [id] }), `Removed object ${id}.`);
}

function correct(item) {
  freeze();
  if (live) return toast('Wait for the next image.');
  correcting = item.id;
  find('name').value = item.name;
  drawing.clear();
  render();
  find('stage').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
}

// --- texts

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?)]$/.test(text) ? '' : '.');
}

function report(answer, done) {
  toast(answer.ok ? done : sentence(answer.text), !answer.ok);
}

let toastTimer = 0;
function toast(text, bad = false) {
  const element = find('toast');
  element.textContent = text;
  element.className = bad ? 'bad' : '';
  element.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { element.hidden = true; }, bad ? 8000 : 3000);
}

function bytes(count) {
  return count === null ? '–' : count < 1e9 ? `${Math.round(count / 1e6)} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

function seconds(value) {
  if (value === null) return '–';
  return value < 1 ? `${Math.round(value * 1000)} ms` : value < 100 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

// --- rendering

// Title and text over the image; null while there is an image to show.
function notice() {
  if (!status) return ['Connecting', 'No connection to xmem-ros web. Check that it is running; this page reconnects by itself.'];
  if (status.state === 'missing') return ['Tracker not found', missing()];
  if (status.state !== 'active' && status.state !== 'busy') return [`The tracker is ${status.state}`, notActive()];
  if (!received) return ['Waiting for the first image', waitingFor()];
  return null;
}

// The input that the tracker waits for, and what to check.
function waitingFor() {
  if (status.no_image) return sentence(status.no_image);
  const waits = status.image_topic ? `waiting for images on ${status.image_topic}` : 'waiting for its first image';
  return `The tracker ${status.node} is active and ${waits}.`;
}

function missing() {
  const others = status.others.length ? `Visible trackers: ${status.others.join(', ')}` : 'No other tracker is visible';
  return `No node ${status.node} is visible. ${others}. Start the node (ros2 launch xmem_ros track.launch.py), or start xmem-ros web `
    + `with --node and the full name of a tracker, such as ${status.others[0] || '/front/xmem'}. This page connects once the node is visible.`;
}

function notActive() {
  const steps = { unconfigured: ['configure', 'activate'], inactive: ['activate'] }[status.state];
  if (!steps) return `${status.node} is not tracking.`;
  return `${status.node} is ${status.state} and not tracking. Start it: ${steps.map(step => `ros2 lifecycle set ${status.node} ${step}`).join('; ')}`;
}

// Text for an empty list of objects.
function noObjects() {
  if (!status) return 'Not connected.';
  if (status.state === 'missing') return 'Unknown: the tracker was not found.';
  if (status.state === 'busy') return 'Unknown: the tracker does not respond.';
  if (status.state !== 'active') return `Unknown: the tracker is ${status.state}.`;
  return received ? 'None yet. Draw a box around an object in the image.' : 'Unknown until the first image arrives.';
}

function render() {
  const overlay = notice();
  find('notice').hidden = !overlay || (!live && !!shown);
  if (overlay) {
    find('notice-title').textContent = overlay[0];
    find('notice-text').textContent = overlay[1];
  }
  const chip = find('state');
  const stale = status && status.state === 'active' && status.stale;
  const [text, kind] = !status ? ['connecting', 'warn']
    : status.state !== 'active' ? [status.state, 'bad']
    : !live ? ['frozen', 'warn']
    : stale ? ['no images', 'warn']
    : received && !(shown && shown.gone) ? ['live', 'good'] : ['waiting', 'warn'];
  chip.textContent = text;
  chip.className = `chip ${kind}`;
  const strip = find('strip');
  const line = overlay && !live ? overlay[0] : !live ? 'Frozen while drawing' : stale && !overlay ? status.no_image ? `No image on ${status.image_topic} for ${seconds(status.silent)}.` : `No new image for ${seconds(status.silent)}.` : '';
  strip.textContent = line;
  strip.title = stale ? sentence(status.no_image) : '';
  strip.hidden = !line;

  find('node').textContent = status ? status.node : '';
  find('stage').classList.toggle('frozen', !live);
  const freezer = find('freeze');
  freezer.hidden = !shown || (live && !!overlay);
  freezer.textContent = live ? 'Freeze' : 'Go live';
  freezer.setAttribute('aria-pressed', String(!live));

  find('sign').hidden = drawing.tool !== 'points';
  find('brush').hidden = find('size-label').hidden = drawing.tool !== 'mask';
  find('undo').disabled = drawing.empty;
  find('hint').textContent = HINTS[drawing.tool];
  find('cancel').hidden = live;
  const button = find('seed');
  button.disabled = live || !drawing.complete || !!waiting || pointer !== null;
  button.textContent = waiting ? 'Please wait …' : correcting ? 'Correct' : 'Track';
  find('target').hidden = correcting === null;

  const objects = status ? status.objects : [];
  const chosen = objects.find(item => item.id === correcting);
  find('target-text').textContent = correcting === null ? '' : `Correcting ${chosen ? titleOf(chosen) : `object ${correcting}`}`;
  renderObjects(objects);
  find('no-objects').hidden = objects.length > 0;
  find('no-objects').textContent = noObjects();
  const asked = find('reset').dataset.asked === 'yes' && objects.length > 0;
  find('reset').hidden = !objects.length || asked;
  find('confirm').hidden = !asked;

  const active = status && status.state === 'active';
  find('rate').textContent = active && status.rate ? `${status.rate.toFixed(1)} Hz` : '–';
  find('age').textContent = seconds(active ? status.age : null);
  find('age').classList.toggle('warn', !!active && status.age > 1);
  find('memory').textContent = bytes(status ? status.memory : null);
}

function titleOf(item) {
  return item.name || `object ${item.id}`;
}

const rows = new Map();  // id → elements; reused, so that no button is replaced during a tap

function renderObjects(objects) {
  const list = find('objects');
  for (const [id, row] of rows) {
    if (!objects.some(item => item.id === id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  for (const item of objects) {
    if (!rows.has(item.id)) rows.set(item.id, makeRow(list, item.id));
    const row = rows.get(item.id);
    row.item = item;
    row.element.classList.toggle('chosen', item.id === correcting);
    row.swatch.style.background = item.colour;
    row.name.firstChild.textContent = titleOf(item);
    row.number.textContent = item.name ? `${item.id}` : '';
    row.state.textContent = item.state.toLowerCase();
    row.state.className = item.state;
    row.score.value = item.score;
    row.score.title = `score ${item.score.toFixed(2)}`;
    row.score.hidden = item.state === 'OCCLUDED' || item.state === 'LOST';
    row.absent.textContent = item.unseen ? `for ${seconds(item.unseen)}` : item.score.toFixed(2);
  }
}

function makeRow(list, id) {
  const make = (tag, className, parent) => {
    const element = document.createElement(tag);
    element.className = className;
    parent.append(element);
    return element;
  };
  const element = make('li', '', list);
  element.dataset.id = id;
  const row = { element, swatch: make('span', 'swatch', element), name: make('span', 'name', element) };
  row.name.append('');
  row.number = make('small', '', row.name);
  const detail = make('span', 'detail', element);
  row.state = make('span', '', detail);
  row.score = make('meter', '', detail);
  row.absent = make('span', '', detail);
  const actions = make('span', 'actions', element);
  const correction = make('button', 'correct', actions);
  correction.textContent = 'Correct';
  correction.type = 'button';
  correction.addEventListener('click', () => correct(row.item));
  const removal = make('button', 'remove', actions);
  removal.textContent = 'Remove';
  removal.type = 'button';
  removal.addEventListener('click', () => remove(id));
  return row;
}

render();
connect();
