// SPDX-License-Identifier: MIT
'use strict';

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LEAP = 10;  // px with Shift

// Pointer and keys on the image. Coordinates are image pixels.
class Input {
  // start: called before drawing; returns whether it is possible. changed: called after each change.
  constructor(canvas, drawing, { start, changed }) {
    Object.assign(this, { canvas, drawing, start, changed });
    this.pointer = null;
    this.penDown = false;  // Enter has begun a box or a stroke
    this.cursor = null;
    canvas.addEventListener('pointerdown', event => this.down(event));
    canvas.addEventListener('pointermove', event => this.move(event));
    for (const kind of ['pointerup', 'pointercancel']) canvas.addEventListener(kind, event => this.up(event));
    canvas.addEventListener('keydown', event => this.key(event));
    canvas.addEventListener('blur', () => this.lift());
  }

  // Whether a box or a stroke is being drawn.
  get busy() {
    return this.pointer !== null || this.penDown;
  }

  down(event) {
    if (this.pointer !== null || event.button > 0 || !this.start()) return;
    this.lift();
    this.cursor = this.drawing.cursor = null;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(this.pointer);
    const place = this.placeOf(event);
    this.touch(event, place);
    this.drawing.begin(place, this.near(event.pointerType === 'touch' ? 24 : 12));
    this.changed();
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const parts = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const part of parts.length ? parts : [event]) {
      const place = this.placeOf(part);
      this.touch(part, place);
      this.drawing.drag(place);
    }
  }

  up(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.drawing.end();
    this.changed();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.pointer !== null) return;
    const enter = event.key === 'Enter' || event.key === ' ';
    if (event.key === 'Backspace' || event.key === 'Delete') {
      this.lift();
      this.drawing.undo();
    } else if (!enter && !ARROWS[event.key]) return;
    else if (this.start()) {
      const { drawing } = this;
      if (!this.cursor) this.cursor = [Math.floor(drawing.width / 2), Math.floor(drawing.height / 2)];
      this.step(enter ? [0, 0] : ARROWS[event.key], event.shiftKey ? LEAP : 1);
      if (enter && !event.repeat) this.press();
      drawing.cursor = this.place;
      drawing.repaint();
    }
    event.preventDefault();  // the page must not scroll
    this.changed();
  }

  step(direction, length) {
    const most = [this.drawing.width - 1, this.drawing.height - 1];
    this.cursor = this.cursor.map((value, axis) => Math.min(Math.max(value + length * direction[axis], 0), most[axis]));
    if (this.penDown) this.drawing.drag(this.place);
  }

  // Set a point; begin or end a box or a stroke.
  press() {
    if (this.penDown) return this.lift();
    this.drawing.begin(this.place, this.near(6));
    if (this.drawing.tool === 'points') this.drawing.end();
    else this.penDown = true;
  }

  lift() {
    if (!this.penDown) return;
    this.penDown = false;
    this.drawing.end();
    this.changed();
  }

  get place() {  // the middle of the cursor's pixel
    return this.cursor.map(value => value + .5);
  }

  near(distance) {  // screen px to image px
    return distance * this.drawing.width / this.canvas.clientWidth;
  }

  placeOf(event) {
    const { canvas, drawing } = this;
    const frame = canvas.getBoundingClientRect();
    const keep = (value, most) => Math.min(Math.max(value, 0), most);
    const x = keep((event.clientX - frame.left) / frame.width * drawing.width, drawing.width);
    const y = keep((event.clientY - frame.top) / frame.height * drawing.height, drawing.height);
    // A point is a pixel; a box corner may lie on the image's edge.
    return drawing.tool === 'points' ? [Math.min(x, drawing.width - .01), Math.min(y, drawing.height - .01)] : [x, y];
  }

  touch(event, place) {
    this.drawing.touch = event.pointerType === 'touch' ? place : null;
  }
}
