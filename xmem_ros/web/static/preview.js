// SPDX-License-Identifier: MIT
'use strict';

const SIZES = { 1: [''], 2: ['Small', 'Large'], 3: ['Small', 'Medium', 'Large'] };

// Candidates of a drawing before it is accepted. At most one request is under way; the newest drawing wins.
class Preview {
  // ask: sends a command and returns a promise of its answer. changed: called with an answer.
  constructor(ask, changed) {
    this.ask = ask;
    this.changed = changed;
    this.busy = false;
    this.forget();
  }

  forget() {
    this.wanted = this.answered = '';  // seeds as JSON
    this.candidates = [];  // best first; while a request is under way, those before it
    this.chosen = 0;
    this.request = null;   // number under which the server keeps the candidates
    this.refusal = '';
  }

  // Whether the candidates belong to the newest drawing.
  get current() {
    return this.candidates.length > 0 && this.answered === this.wanted;
  }

  get candidate() {
    return this.candidates[this.chosen] || null;
  }

  // Indices of the candidates, by size.
  get bySize() {
    return this.candidates.map((_, index) => index).sort((one, other) => this.candidates[one].area - this.candidates[other].area);
  }

  // seed: box or points with a stamp and the id to correct; null: none.
  update(seed) {
    const wanted = seed ? JSON.stringify(seed) : '';
    if (wanted === this.wanted) return;
    if (!seed) this.forget();
    this.wanted = wanted;
    this.run();
  }

  async run() {
    if (this.busy) return;
    this.busy = true;
    while (this.wanted && this.wanted !== this.answered) {
      const wanted = this.wanted;
      this.answered = '';  // the server keeps the candidates of the newest request only
      const answer = await this.ask({ type: 'preview', ...JSON.parse(wanted) });
      const candidates = answer.ok ? await Promise.all(answer.candidates.map(decode)) : [];
      if (wanted !== this.wanted) continue;
      this.answered = wanted;
      this.candidates = candidates;
      this.chosen = 0;
      this.request = answer.request;
      this.refusal = answer.ok ? '' : answer.text;
      this.changed(answer);
    }
    this.busy = false;
  }
}

// Decode a candidate: its mask and its outline become pictures with transparency.
async function decode({ quality, area, png }) {
  const bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const { width, height } = bitmap;
  const [mask, outline] = [0, 1].map(() => Object.assign(document.createElement('canvas'), { width, height }));
  const pen = mask.getContext('2d', { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  const inside = pen.getImageData(0, 0, width, height);
  const words = new Uint32Array(inside.data.buffer);
  const edge = new ImageData(width, height);
  const edgeWords = new Uint32Array(edge.data.buffer);
  const accent = 0xffa5d035, light = 0xfff8ffea;  // alpha, blue, green, red
  for (let index = 0; index < words.length; index++) words[index] = words[index] & 0xff ? accent : 0;
  for (let y = 0, index = 0; y < height; y++) {
    for (let x = 0; x < width; x++, index++) {
      if (!words[index]) continue;
      const within = x > 0 && x < width - 1 && y > 0 && y < height - 1
        && words[index - 1] && words[index + 1] && words[index - width] && words[index + width];
      if (!within) edgeWords[index] = light;
    }
  }
  pen.putImageData(inside, 0, 0);
  outline.getContext('2d').putImageData(edge, 0, 0);
  return { quality, area, mask, outline };
}
