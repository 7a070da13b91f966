// SPDX-License-Identifier: MIT
'use strict';

// List of the tracked objects.
class ObjectList {
  // correct, remove: called with an object's item and id.
  constructor(list, { correct, remove }) {
    Object.assign(this, { list, correct, remove });
    this.rows = new Map();  // id → elements; reused, so that no button is replaced during a tap
  }

  render(objects, chosen) {
    for (const [id, row] of this.rows) {
      if (!objects.some(item => item.id === id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    for (const item of objects) {
      if (!this.rows.has(item.id)) this.rows.set(item.id, this.makeRow(item.id));
      const row = this.rows.get(item.id);
      row.item = item;
      row.element.classList.toggle('chosen', item.id === chosen);
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

  makeRow(id) {
    const make = (tag, className, parent) => {
      const element = document.createElement(tag);
      element.className = className;
      parent.append(element);
      return element;
    };
    const element = make('li', '', this.list);
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
    correction.addEventListener('click', () => this.correct(row.item));
    const removal = make('button', 'remove', actions);
    removal.textContent = 'Remove';
    removal.type = 'button';
    removal.addEventListener('click', () => this.remove(id));
    return row;
  }
}
