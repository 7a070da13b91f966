# SPDX-License-Identifier: MIT
"""Who may use the page: token, cookie, Host and Origin headers. No ROS, no aiohttp."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from xmem_ros.errors import ParameterError

TOKEN_VARIABLE = 'XMEM_ROS_WEB_TOKEN'  # noqa: S105  # a name
LEAST_TOKEN, MOST_TOKEN = 16, 256  # characters; so many cannot be found by trying
_TOKEN = re.compile(r'[A-Za-z0-9._~\-]+')
_HOST = re.compile(r'[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?')


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can only be reached from this machine."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def given_token(file: str | None, environment: Mapping[str, str]) -> str | None:
    """The token of a file, or else of the environment variable `TOKEN_VARIABLE`; None where neither is given.

    Args:
        file: path; white space around the token is left out. Empty or None: none.
        environment: of the process.

    Raises:
        ParameterError: the file cannot be read, or what was given is no token. The text does not hold the token.
    """
    if file:
        try:
            with Path(file).expanduser().open('rb') as stream:
                text = stream.read(MOST_TOKEN + 64).decode('ascii', 'replace').strip()
        except OSError as error:
            raise ParameterError(
                f'--token-file {file} cannot be read ({error.strerror or error}): give a file that holds the token'
            ) from error
        return _checked(text, f'the token in {file}')
    text = environment.get(TOKEN_VARIABLE, '')
    return _checked(text, f'the token in {TOKEN_VARIABLE}') if text else None


def choose_token(host: str, token: str | None) -> str:
    """The token to ask for: the one given, none where only this machine can reach the page, else a random one."""
    if token is None:
        return '' if is_loopback(host) else secrets.token_urlsafe(16)
    return token


def _checked(token: str, source: str) -> str:
    if not LEAST_TOKEN <= len(token) <= MOST_TOKEN or not _TOKEN.fullmatch(token):
        raise ParameterError(
            f'{source} cannot be used: give {LEAST_TOKEN} to {MOST_TOKEN} letters, digits, ".", "_", "~" or "-" '
            '(openssl rand -hex 16), or none for a random one'
        )
    return token


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Arguments:
        token: that a browser must have signed in with; empty: none is asked for, and only names of this machine are
            answered to, so that no page from elsewhere gets in through a name of its own that leads here.
    """

    token: str

    @property
    def session(self) -> str:
        """What the cookie holds. Browsers send cookies to all ports of a host, so it is not the token itself."""
        return hmac.new(self.token.encode(), b'xmem_ros session', 'sha256').hexdigest()

    def knows(self, given: str) -> bool:
        """Whether this is the token; takes as long whatever is given."""
        return _same(given, self.token)

    def signed_in(self, cookie: str | None) -> bool:
        """Whether this is the cookie of a browser that has signed in, or none is needed."""
        return not self.token or _same(cookie or '', self.session)

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header names this machine."""
        if not _HOST.fullmatch(host):
            return False
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:  # brackets around no address
            return False
        return bool(self.token) or is_loopback(name)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether an Origin header is that of our own page. A WebSocket is not bound to it by the browser."""
        try:
            return origin is not None and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False


def _same(given: str, expected: str) -> bool:
    # what no header can hold is no token
    return hmac.compare_digest(given.encode(errors='replace'), expected.encode())
