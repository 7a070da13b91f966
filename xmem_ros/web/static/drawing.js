// SPDX-License-Identifier: MIT
'use strict';

// Drawing over the frozen image: a box, points, or a painted mask. Coordinates are image pixels.
class Drawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.paper = document.createElement('canvas');  // painted mask at the image's size
    this.tool = 'box';
    this.sign = 1;
    this.brush = 1;
    this.size = 30;  // brush size, 1 to 100
    this.width = this.height = 1;
    this.touch = null;  // position under the finger
    this.picture = null;  // image below, for the magnifier
    this.cursor = null;  // position of the keyboard's cursor
    this.clear();
  }

  // Adapt to a new image size.
  resize(width, height) {
    if (width === this.width && height === this.height) return;
    [this.width, this.height] = [width, height];
    this.paper.width = width;
    this.paper.height = height;
    this.clear();
  }

  clear() {
    this.box = null;
    this.points = [];
    this.strokes = [];
    this.base = null;       // picture of the mask under the strokes
    this.candidate = null;  // pictures `mask` and `outline` of the mask that the drawing gives
    this.faint = false;     // whether the candidate belongs to an earlier state of the drawing
    this.grip = null;
    this.repaint();
  }

  get empty() {
    return { box: !this.box, points: !this.points.length, mask: !this.strokes.length }[this.tool];
  }

  // Whether the drawing is sufficient for a seed.
  get complete() {
    if (this.tool === 'box') return !!this.box && this.box[2] >= 4 && this.box[3] >= 4;
    if (this.tool === 'points') return this.points.some(point => point[2] === 1);
    return !!this.base || this.strokes.some(stroke => stroke.brush === 1);
  }

  undo() {
    if (this.tool === 'box') this.box = null;
    if (this.tool === 'points') this.points.pop();
    if (this.tool === 'mask') this.strokes.pop();
    this.repaint();
  }

  // The seed for the server; null if the mask is empty.
  seed() {
    if (this.tool === 'box') return { kind: 'box', box: this.box };
    if (this.tool === 'points') return { kind: 'points', points: this.points };
    const runs = this.runs();
    return runs.length < 2 ? null : { kind: 'mask', width: this.width, height: this.height, runs };
  }

  // Run lengths of the mask in row order, beginning with background.
  runs() {
    const pixels = this.paper.getContext('2d').getImageData(0, 0, this.width, this.height).data;
    const runs = [];
    let inside = false, length = 0;
    for (let index = 3; index < pixels.length; index += 4) {
      if ((pixels[index] > 127) !== inside) {
        runs.push(length);
        inside = !inside;
        length = 0;
      }
      length += 1;
    }
    runs.push(length);
    return runs;
  }

  get radius() {  // image px
    return Math.max(1, 0.0012 * this.size * Math.min(this.width, this.height));
  }

  // --- pointer input. `place`: x, y; `near`: hit distance [image px].

  begin(place, near) {
    if (this.tool === 'points') {
      const hit = this.points.findIndex(point => Math.hypot(point[0] - place[0], point[1] - place[1]) < near);
      if (hit >= 0) this.points.splice(hit, 1);
      else this.points.push([...place, this.sign]);
    } else if (this.tool === 'mask') {
      this.strokes.push({ brush: this.brush, radius: this.radius, path: [place] });
    } else {
      this.grip = this.gripAt(place, near);
      if (this.grip.corner) this.drag(place);
    }
    this.repaint();
  }

  // A corner of the box, its inside, or a new box.
  gripAt(place, near) {
    if (this.box) {
      const [x, y, width, height] = this.box;
      for (const [cx, cy, ox, oy] of [
        [x, y, x + width, y + height], [x + width, y, x, y + height],
        [x, y + height, x + width, y], [x + width, y + height, x, y],
      ]) {
        if (Math.hypot(cx - place[0], cy - place[1]) < near) return { corner: [ox, oy] };
      }
      if (place[0] > x && place[0] < x + width && place[1] > y && place[1] < y + height) {
        return { move: [place[0] - x, place[1] - y] };
      }
    }
    return { corner: place };
  }

  drag(place) {
    if (this.tool === 'mask' && this.strokes.length) {
      this.strokes[this.strokes.length - 1].path.push(place);
    } else if (this.tool === 'box' && this.grip && this.grip.move) {
      const [, , width, height] = this.box;
      const keep = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
      this.box = [keep(place[0] - this.grip.move[0], this.width - width), keep(place[1] - this.grip.move[1], this.height - height), width, height];
    } else if (this.tool === 'box' && this.grip) {
      const [ax, ay] = this.grip.corner;
      const x = Math.floor(Math.min(ax, place[0])), y = Math.floor(Math.min(ay, place[1]));
      this.box = [x, y, Math.ceil(Math.max(ax, place[0])) - x, Math.ceil(Math.max(ay, place[1])) - y];
    }
    this.repaint();
  }

  end() {
    this.grip = null;
    this.touch = null;
    if (this.tool === 'box' && this.box && (this.box[2] < 4 || this.box[3] < 4)) this.box = null;  // a tap
    this.repaint();
  }

  // --- painting

  repaint() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * ratio), high = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const pen = canvas.getContext('2d');
    pen.clearRect(0, 0, wide, high);
    const scale = wide / this.width;
    if (this.tool === 'mask') this.paintStrokes();
    this.sketch(pen, scale, ratio);
    if (this.cursor) this.cross(pen, scale, ratio);
    if (this.touch && this.picture) this.magnify(pen, scale, ratio);
  }

  sketch(pen, scale, ratio) {
    pen.save();
    if (this.candidate) {
      const size = [this.width * scale, this.height * scale];
      pen.globalAlpha = this.faint ? .2 : .4;
      pen.drawImage(this.candidate.mask, 0, 0, ...size);
      pen.globalAlpha = this.faint ? .3 : 1;
      pen.drawImage(this.candidate.outline, 0, 0, ...size);
      pen.globalAlpha = 1;
    }
    if (this.tool === 'box' && this.box) {
      const [x, y, width, height] = this.box.map(value => value * scale);
      if (!this.candidate) {
        pen.fillStyle = 'rgb(53 208 165 / .16)';
        pen.fillRect(x, y, width, height);
      }
      for (const [colour, line] of [['rgb(0 0 0 / .6)', 4], ['#35d0a5', 2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = line * ratio;
        pen.strokeRect(x, y, width, height);
      }
      for (const [cx, cy] of [[x, y], [x + width, y], [x, y + height], [x + width, y + height]]) {
        this.dot(pen, cx, cy, 5 * ratio, '#35d0a5', ratio);
      }
    }
    if (this.tool === 'points') {
      for (const [x, y, sign] of this.points) {
        const [cx, cy, arm] = [x * scale, y * scale, 4.5 * ratio];
        this.dot(pen, cx, cy, 9 * ratio, sign ? '#35d0a5' : '#ff7b72', ratio);
        pen.strokeStyle = '#04131a';
        pen.lineWidth = 2 * ratio;
        pen.beginPath();
        pen.moveTo(cx - arm, cy);
        pen.lineTo(cx + arm, cy);
        if (sign) {
          pen.moveTo(cx, cy - arm);
          pen.lineTo(cx, cy + arm);
        }
        pen.stroke();
      }
    }
    if (this.tool === 'mask') {
      pen.globalAlpha = .55;
      pen.drawImage(this.paper, 0, 0, this.width * scale, this.height * scale);
    }
    pen.restore();
  }

  // The keyboard's cursor.
  cross(pen, scale, ratio) {
    const [x, y] = this.cursor.map(value => value * scale), arm = 12 * ratio, gap = 3 * ratio;
    for (const [colour, line] of [['rgb(0 0 0 / .6)', 4], ['#e8eef5', 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line * ratio;
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(x + dx * gap, y + dy * gap);
        pen.lineTo(x + dx * arm, y + dy * arm);
      }
      pen.stroke();
    }
  }

  dot(pen, x, y, radius, colour, ratio) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = colour;
    pen.fill();
    pen.lineWidth = 1.5 * ratio;
    pen.strokeStyle = 'rgb(0 0 0 / .65)';
    pen.stroke();
  }

  paintStrokes() {
    const pen = this.paper.getContext('2d', { willReadFrequently: true });
    pen.clearRect(0, 0, this.width, this.height);
    if (this.base) {
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.base, 0, 0, this.width, this.height);
    }
    pen.strokeStyle = pen.fillStyle = '#35d0a5';
    pen.lineCap = pen.lineJoin = 'round';
    for (const { brush, radius, path } of this.strokes) {
      pen.globalCompositeOperation = brush ? 'source-over' : 'destination-out';
      pen.lineWidth = 2 * radius;
      pen.beginPath();
      pen.moveTo(...path[0]);
      for (const place of path) pen.lineTo(...place);
      pen.lineTo(path[path.length - 1][0] + 0.01, path[path.length - 1][1]);
      pen.stroke();
    }
    pen.globalCompositeOperation = 'source-over';
  }

  // Magnifier: the area under the finger, 3x, in the opposite corner.
  magnify(pen, scale, ratio) {
    const side = Math.min(110 * ratio, this.canvas.height * .5), zoom = 3 * scale, reach = side / 2 / zoom;
    const [x, y] = this.touch;
    const left = x * scale > this.canvas.width / 2 ? 10 * ratio : this.canvas.width - side - 10 * ratio;
    const top = this.canvas.height - side - 10 * ratio;
    pen.save();
    pen.beginPath();
    pen.arc(left + side / 2, top + side / 2, side / 2, 0, 2 * Math.PI);
    pen.fillStyle = '#05080c';
    pen.fill();
    pen.clip();
    const share = this.picture.width / this.width;  // the picture may be smaller than the camera's image
    pen.drawImage(this.picture, (x - reach) * share, (y - reach) * share, 2 * reach * share, 2 * reach * share, left, top, side, side);
    pen.translate(left + side / 2 - x * zoom, top + side / 2 - y * zoom);
    this.sketch(pen, zoom, ratio);
    pen.restore();
    pen.strokeStyle = '#e8eef5';
    pen.lineWidth = 2 * ratio;
    pen.beginPath();
    pen.arc(left + side / 2, top + side / 2, side / 2, 0, 2 * Math.PI);
    pen.moveTo(left + side / 2 - 6 * ratio, top + side / 2);
    pen.lineTo(left + side / 2 + 6 * ratio, top + side / 2);
    pen.moveTo(left + side / 2, top + side / 2 - 6 * ratio);
    pen.lineTo(left + side / 2, top + side / 2 + 6 * ratio);
    pen.stroke();
  }
}
