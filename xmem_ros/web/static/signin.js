// SPDX-License-Identifier: MIT
'use strict';

const find = id => document.getElementById(id);

// The token moves from the address to a request body: addresses are stored and logged.
async function signIn(token) {
  const answer = await fetch('signin', { method: 'POST', body: token }).catch(() => null);
  if (answer && answer.ok) return location.replace('/');
  find('refusal').textContent = !answer ? 'The server does not respond.' : answer.status === 403 ? 'Wrong token.' : `The server refused the request: ${answer.status}.`;
  find('refusal').hidden = false;
}

find('sign-in').addEventListener('submit', event => {
  event.preventDefault();
  signIn(find('token').value.trim());
});

function fromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (!token) return;
  history.replaceState(null, '', location.pathname);
  signIn(token);
}
window.addEventListener('hashchange', fromAddress);
fromAddress();
