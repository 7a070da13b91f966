# SPDX-License-Identifier: MIT
"""Addresses of live streams: a URL, a camera index or a pipe. No FFmpeg."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from xmem_ros.errors import ParameterError

PIPE = '-'
SCHEMES = ('rtsp', 'rtsps', 'http', 'https', 'udp', 'tcp')
FORMS = 'a URL (rtsp://…, http://…), a camera index (0, or /dev/video0) or - for standard input'
_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')
_CAMERA = re.compile(r'/dev/video\d{1,3}')
_INDEX = re.compile(r'\d{1,3}')
_SECRET_PATH = re.compile('pass|pwd|token|key|secret|auth|user|login', re.IGNORECASE)


class Kind(Enum):
    """Kind of a stream."""

    NETWORK = 'network'
    CAMERA = 'camera'
    PIPE = 'pipe'


@dataclass(frozen=True)
class StreamAddress:
    """Address of a live stream; its text, as in errors, is without user, password and query.

    Attributes:
        kind: network, camera or pipe.
        url: for FFmpeg; it may have a password, so never print it.
    """

    kind: Kind
    url: str

    def __str__(self) -> str:
        if self.kind is Kind.PIPE:
            return 'standard input'
        scheme, found, rest = self.url.partition('://')
        if not found:
            return self.url
        authority = re.split('[/?#]', rest, maxsplit=1)[0]
        path = re.split('[?#]', rest[len(authority) :], maxsplit=1)[0]
        user, at, host = authority.rpartition('@')
        return f'{scheme}://{"***@" if at and user else ""}{host}{"/***" if _SECRET_PATH.search(path) else path}'

    def __repr__(self) -> str:
        return f'StreamAddress({self})'

    @property
    def host(self) -> str:
        """Host of a URL; '' for others."""
        scheme, found, rest = self.url.partition('://')
        host = re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2] if found and scheme else ''
        return host[1:].partition(']')[0] if host.startswith('[') else host.partition(':')[0]


def stream_address(text: str) -> StreamAddress | None:
    """Parse the address of a stream; None for what can only be a file or folder.

    A number is a camera's index unless a file or folder has this name.

    Raises:
        ParameterError: a URL of another scheme, or without a host.
    """
    if text == PIPE:
        return StreamAddress(Kind.PIPE, 'pipe:0')
    if _CAMERA.fullmatch(text):
        return StreamAddress(Kind.CAMERA, text)
    if _INDEX.fullmatch(text) and not Path(text).exists():
        return StreamAddress(Kind.CAMERA, f'/dev/video{int(text)}')
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme = found[1].lower()
    address = StreamAddress(Kind.NETWORK, f'{scheme}{text[len(found[1]) :]}')
    if scheme not in SCHEMES:
        raise ParameterError(f'{address}: {scheme}:// is not read; give {", ".join(f"{name}://" for name in SCHEMES)}')
    if '\0' in text or not (address.host or scheme == 'udp'):
        raise ParameterError(f'{address}: no host in this address; write it as rtsp://host:port/path')
    return address
