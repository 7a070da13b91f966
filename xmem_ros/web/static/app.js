// SPDX-License-Identifier: MIT
'use strict';

const find = id => document.getElementById(id);
const drawing = new Drawing(find('draft'));
const RETRY_MS = [300, 1000, 2000, 5000];
const HINTS = {
  box: 'Drag a box around the whole object. The image stands still while you draw.',
  points: 'Tap on the object; tap beside it to exclude background. Tap a point again to remove it.',
  mask: 'Paint over the object, or over the mask that is shown. Use the eraser for corrections.',
};
const CORRECTION = 'Tap on parts that the mask misses; tap background that it covers, with Background chosen.';

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
const preview = new Preview(ask, takeCandidates);
const list = new ObjectList(find('objects'), { correct, remove });
const input = new Input(find('draft'), drawing, { start: startDrawing, changed: render });

// --- the connection

function connect() {
  socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/socket`);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    failures = 0;
    look();
    render();
  };
  socket.onmessage = event => typeof event.data === 'string' ? take(JSON.parse(event.data)) : takeImage(event.data);
  socket.onclose = () => {
    status = null;
    for (const answer of promises.values()) answer({ ok: false, text: 'The connection was lost before an answer arrived: check whether the command was executed.' });
    promises.clear();
    preview.forget();  // the server has, too
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
  preview.forget();
  input.penDown = false;
  find('refusal').hidden = true;
  look();
  render();
}

function cancel() {
  find('name').value = '';
  goLive();
}

// --- drawing and candidates

new ResizeObserver(() => drawing.repaint()).observe(find('draft'));

// Freeze the image; returns whether it can be drawn on.
function startDrawing() {
  if (!shown || waiting) return false;
  freeze();
  return !live;
}

// The seed to preview; null: none; undefined: as before.
function seedToPreview() {
  if (live || !shown || shown.gone || !socket || socket.readyState !== WebSocket.OPEN) return null;
  const target = { stamp: shown.stamp, id: correcting || 0 };
  if (input.busy) return undefined;
  if (drawing.tool === 'mask' && (drawing.base || preview.wanted)) return undefined;
  if (drawing.tool === 'box' && drawing.complete) return { ...target, ...drawing.seed() };
  if (drawing.tool === 'points' && (drawing.complete || (correcting !== null && !drawing.empty))) return { ...target, ...drawing.seed() };
  return correcting === null ? null : { ...target, kind: 'points', points: [] };  // its current mask
}

function takeCandidates(answer) {
  if (answer.gone && !live) return refuse(answer);
  paintOver();
  render();
}

// Painting begins from the candidate.
function paintOver() {
  if (drawing.tool === 'mask' && preview.current && !drawing.base) drawing.base = preview.candidate.mask;
}

function renderPreview() {
  preview.update(seedToPreview());
  const painting = drawing.tool === 'mask';
  const { current, candidate } = preview;
  drawing.candidate = painting ? null : candidate;
  drawing.faint = !current;
  drawing.repaint();
  const refused = preview.refusal && !drawing.empty && preview.answered === preview.wanted;
  const predicted = candidate && candidate.quality !== null ? ` Predicted IoU ${candidate.quality.toFixed(2)}.` : '';
  find('preview-text').textContent = painting || live ? ''
    : refused ? sentence(preview.refusal)
    : current ? `${correcting === null ? 'Track' : 'Correct'} takes the mask that is shown.${predicted}`
    : preview.wanted && preview.busy ? 'Looking for the object …' : '';
  find('preview-text').className = refused ? 'bad' : '';
  const buttons = find('candidates').children, order = preview.bySize;
  find('candidates').hidden = painting || !current || order.length < 2;
  find('preview').hidden = !find('preview-text').textContent;
  for (const [place, button] of [...buttons].entries()) {
    const index = order[place];
    button.hidden = index === undefined;
    if (button.hidden) continue;
    const { quality } = preview.candidates[index];
    button.textContent = SIZES[order.length][place];
    button.title = `Key ${place + 1}${quality === null ? '' : `, predicted IoU ${quality.toFixed(2)}`}`;
    button.setAttribute('aria-checked', String(index === preview.chosen));
  }
}

function chooseCandidate(place) {
  if (find('candidates').hidden || preview.bySize[place] === undefined) return;
  preview.chosen = preview.bySize[place];
  render();
}

function undo() {
  input.lift();
  drawing.undo();
  render();
}

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
choose(document.querySelector('[aria-label="Tool"]'), 'tool', tool => {
  drawing.tool = tool;
  drawing.base = null;
  paintOver();
});
choose(find('sign'), 'sign', sign => { drawing.sign = Number(sign); });
choose(find('brush'), 'brush', brush => { drawing.brush = Number(brush); });
find('size').addEventListener('input', event => { drawing.size = Number(event.target.value); });
find('undo').addEventListener('click', undo);
for (const [place, button] of [...find('candidates').children].entries()) button.addEventListener('click', () => chooseCandidate(place));
find('freeze').addEventListener('click', () => live ? freeze() : goLive());
find('cancel').addEventListener('click', cancel);
find('new-object').addEventListener('click', () => { correcting = null; find('name').value = ''; render(); });
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && !live) cancel();
  if (event.target.tagName === 'INPUT' || waiting) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key === 'z') undo();
  } else if (event.key >= '1' && event.key <= '3') chooseCandidate(Number(event.key) - 1);
  else if ((event.key === '+' || event.key === '-') && drawing.tool === 'points') {
    find('sign').querySelector(`[data-sign="${event.key === '+' ? 1 : 0}"]`).click();
  }
});
document.addEventListener('visibilitychange', look);

find('seed-form').addEventListener('submit', async event => {
  event.preventDefault();
  if (waiting || live || !seedable()) return;
  const accepted = drawing.tool !== 'mask' && preview.current;  // exactly the mask that is shown
  const seed = accepted ? { preview: preview.request, candidate: preview.chosen } : drawing.seed();
  if (!seed) return refuse({ text: 'Nothing is painted: paint over the object first.' });
  find('name').blur();  // closes the on-screen keyboard
  waiting = ask({ type: accepted ? 'accept' : 'seed', stamp: shown.stamp, name: find('name').value.trim(), id: correcting || 0, ...seed });
  find('refusal').hidden = true;
  render();
  const answer = await waiting;
  waiting = null;
  if (!answer.ok) return refuse(answer);
  toast(`${correcting === null ? 'Seeded' : 'Corrected'} object ${answer.ids.join(', ')}.`);
  find('name').value = '';
  goLive();
});

function seedable() {
  return drawing.complete || (drawing.tool !== 'mask' && preview.current);
}

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
  preview.forget();
  render();
  find('stage').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
}

// --- texts

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

// --- rendering

function render() {
  renderPreview();
  const overlay = noticeOf(status, received);
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
  find('hint').textContent = correcting !== null && drawing.tool === 'points' ? CORRECTION : HINTS[drawing.tool];
  find('cancel').hidden = live;
  const button = find('seed');
  button.disabled = live || !seedable() || !!waiting || input.busy;
  button.textContent = waiting ? 'Please wait …' : correcting ? 'Correct' : 'Track';
  find('target').hidden = correcting === null;

  const objects = status ? status.objects : [];
  const chosen = objects.find(item => item.id === correcting);
  find('target-text').textContent = correcting === null ? '' : `Correcting ${chosen ? titleOf(chosen) : `object ${correcting}`}`;
  list.render(objects, correcting);
  find('no-objects').hidden = objects.length > 0;
  find('no-objects').textContent = noObjects(status, received);
  const asked = find('reset').dataset.asked === 'yes' && objects.length > 0;
  find('reset').hidden = !objects.length || asked;
  find('confirm').hidden = !asked;

  const active = status && status.state === 'active';
  find('rate').textContent = active && status.rate ? `${status.rate.toFixed(1)} Hz` : '–';
  find('age').textContent = seconds(active ? status.age : null);
  find('age').classList.toggle('warn', !!active && status.age > 1);
  find('memory').textContent = bytes(status ? status.memory : null);
}

render();
connect();
