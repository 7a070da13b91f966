// SPDX-License-Identifier: MIT
'use strict';

// Texts of the page. `status` is the newest status of the node; null: no connection.

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?)]$/.test(text) ? '' : '.');
}

function bytes(count) {
  return count === null ? '–' : count < 1e9 ? `${Math.round(count / 1e6)} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

function seconds(value) {
  if (value === null) return '–';
  return value < 1 ? `${Math.round(value * 1000)} ms` : value < 100 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

function titleOf(item) {
  return item.name || `object ${item.id}`;
}

// Title and text over the image; null while there is an image to show.
function noticeOf(status, received) {
  if (!status) return ['Connecting', 'No connection to xmem-ros web. Check that it is running; this page reconnects by itself.'];
  if (status.state === 'missing') return ['Tracker not found', missing(status)];
  if (status.state !== 'active' && status.state !== 'busy') return [`The tracker is ${status.state}`, notActive(status)];
  if (!received) return ['Waiting for the first image', waitingFor(status)];
  return null;
}

// The input that the tracker waits for, and what to check.
function waitingFor(status) {
  if (status.no_image) return sentence(status.no_image);
  const waits = status.image_topic ? `waiting for images on ${status.image_topic}` : 'waiting for its first image';
  return `The tracker ${status.node} is active and ${waits}.`;
}

function missing(status) {
  const others = status.others.length ? `Visible trackers: ${status.others.join(', ')}` : 'No other tracker is visible';
  return `No node ${status.node} is visible. ${others}. Start the node (ros2 launch xmem_ros track.launch.py), or start xmem-ros web `
    + `with --node and the full name of a tracker, such as ${status.others[0] || '/front/xmem'}. This page connects once the node is visible.`;
}

function notActive(status) {
  const steps = { unconfigured: ['configure', 'activate'], inactive: ['activate'] }[status.state];
  if (!steps) return `${status.node} is not tracking.`;
  return `${status.node} is ${status.state} and not tracking. Start it: ${steps.map(step => `ros2 lifecycle set ${status.node} ${step}`).join('; ')}`;
}

// Text for an empty list of objects.
function noObjects(status, received) {
  if (!status) return 'Not connected.';
  if (status.state === 'missing') return 'Unknown: the tracker was not found.';
  if (status.state === 'busy') return 'Unknown: the tracker does not respond.';
  if (status.state !== 'active') return `Unknown: the tracker is ${status.state}.`;
  return received ? 'None yet. Draw a box around an object in the image.' : 'Unknown until the first image arrives.';
}
