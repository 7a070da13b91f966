# SPDX-License-Identifier: MIT
"""Access control of the page: token, cookie, Host and Origin headers. No ROS, no aiohttp."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from xmem_ros.errors import ParameterError, Setting, naming

TOKEN_VARIABLE = 'XMEM_ROS_WEB_TOKEN'  # noqa: S105  # a name
LEAST_TOKEN, MOST_TOKEN = 16, 256  # characters; 16 random ones cannot be guessed
_TOKEN = re.compile(r'[A-Za-z0-9._~\-]+')
_HOST = re.compile(r'[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?')


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def given_token(file: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the token of a file or of the variable `TOKEN_VARIABLE`; None without either.

    Args:
        file: path; white space around the token is removed. Empty or None: no file.
        environment: environment variables of the process.

    Raises:
        ParameterError: the file cannot be read, or the token is invalid. The message does not
            contain the token.
    """
    if file:
        try:
            with Path(file).expanduser().open('rb') as stream:
                text = stream.read(MOST_TOKEN + 64).decode('ascii', 'replace').strip()
        except OSError as error:
            text = f'{file} cannot be read ({error.strerror or error}): give a file that holds the token'
            raise naming(Setting.TOKEN_FILE, ParameterError(text)) from error
        return _checked(text, f'the token in {file}')
    text = environment.get(TOKEN_VARIABLE, '')
    return _checked(text, f'the token in {TOKEN_VARIABLE}') if text else None


def choose_token(host: str, token: str | None) -> str:
    """Return the given token; without one: empty on a loopback address, else random."""
    if token is None:
        return '' if is_loopback(host) else secrets.token_urlsafe(16)
    return token


def _checked(token: str, source: str) -> str:
    if not LEAST_TOKEN <= len(token) <= MOST_TOKEN or not _TOKEN.fullmatch(token):
        raise ParameterError(
            f'{source} is invalid: give {LEAST_TOKEN} to {MOST_TOKEN} letters, digits, ".", "_", "~" or "-" '
            '(openssl rand -hex 16), or no token for a random one'
        )
    return token


@dataclass(frozen=True)
class Access:
    """Checks of a request.

    Arguments:
        token: required token. Empty: no token is required, but the Host header must be a loopback
            name, which prevents DNS rebinding by foreign pages.
    """

    token: str

    @property
    def session(self) -> str:
        """Content of the cookie; not the token, which browsers would send to every port."""
        return hmac.new(self.token.encode(), b'xmem_ros session', 'sha256').hexdigest()

    def token_matches(self, given: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return _same(given, self.token)

    def signed_in(self, cookie: str | None) -> bool:
        """Whether the cookie is that of a signed-in browser, or no token is required."""
        return not self.token or _same(cookie or '', self.session)

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header is well-formed and, without a token, a loopback name."""
        if not _HOST.fullmatch(host):
            return False
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:  # brackets without an address
            return False
        return bool(self.token) or is_loopback(name)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether an Origin header is our page's; browsers do not check it for WebSockets."""
        try:
            return origin is not None and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors='replace'), expected.encode())
