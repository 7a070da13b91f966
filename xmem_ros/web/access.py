# SPDX-License-Identifier: MIT
"""Who may use the page. No ROS, no aiohttp."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from xmem_ros.errors import ParameterError

LEAST_TOKEN = 8  # characters
_HOST = re.compile(r'[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?')


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can only be reached from this machine."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, token: str | None) -> str:
    """The token to ask for, empty for none: the one given; where others can reach the page, else, a random one.

    Raises:
        ParameterError: one that is too short or that no address can hold.
    """
    if token is None:
        return '' if is_loopback(host) else secrets.token_urlsafe(16)
    if len(token) < LEAST_TOKEN or not re.fullmatch(r'[A-Za-z0-9._~\-]+', token):
        raise ParameterError(
            f'--token has {len(token)} characters: give at least {LEAST_TOKEN} letters, digits, ".", "_", "~" or "-", '
            'or leave it away for a random one'
        )
    return token


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Arguments:
        token: that it must know; empty: none is asked for, and only names of this machine are answered to, so that no
            page from elsewhere gets in through a name of its own that leads here.
    """

    token: str

    def knows(self, given: str | None) -> bool:
        """Whether this is the token; takes as long whatever is given."""
        # what no header can hold is no token
        return not self.token or hmac.compare_digest((given or '').encode(errors='replace'), self.token.encode())

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
