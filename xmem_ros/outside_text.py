# SPDX-License-Identifier: MIT
"""Escaping of untrusted text for terminals, logs, CSV and XML.

Names of objects, topics and files, and messages of libraries, can contain terminal escape
sequences, line feeds that forge log lines, spreadsheet formulas, and URLs with passwords.
HTML templates do their own escaping. No torch, no ROS.
"""

from __future__ import annotations

import re
import sys
from typing import IO

MAX_LINE_LENGTH = 2000
# some spreadsheets accept full-width characters
_FORMULA = ('=', '+', '-', '@', '\t', '\r', '\uff1d', '\uff0b', '\uff0d', '\uff20')
_NOT_XML = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')  # XML 1.0, production 2
_SECRETS = (
    (re.compile(r'(?<=//)[^/?#\s@\'"]+@'), '***@'),  # user and password
    (re.compile(r'(://[^\s?#\'"<>]*\?)[^\s#\'"<>)]+'), r'\1***'),  # URL query, such as a token or a signature
    (re.compile(r'(?i)\b((?:token|password|secret|api_?key)[=:]\s?)[^\s,;\'"]+'), r'\1***'),
    (re.compile(r'(?i)\b(authorization:?\s+(?:bearer|basic|token)\s+)[^\s,;\'"]+'), r'\1***'),
)


def for_log(text: object) -> str:
    """Return one printable line: secrets masked, other characters escaped."""
    shown = without_secrets(str(text))
    if len(shown) > MAX_LINE_LENGTH:
        shown = f'{shown[:MAX_LINE_LENGTH]}… ({len(shown)} characters)'
    return shown if shown.isprintable() else ''.join(c if c.isprintable() else _escaped(c) for c in shown)


def for_terminal(text: object) -> str:
    """Escape each line as `for_log`; further lines are indented, so that none can be forged."""
    first, *others = str(text).split('\n')
    return '\n'.join([for_log(first), *(f'  {for_log(line.strip())}' for line in others)])


def for_csv(text: object) -> str:
    """Return a CSV cell; an apostrophe precedes text that spreadsheets take for a formula."""
    shown = ''.join(c if c.isprintable() else _escaped(c) for c in str(text))
    return f"'{shown}" if str(text).startswith(_FORMULA) or shown.lstrip().startswith(_FORMULA) else shown


def for_xml(text: object) -> str:
    """Replace characters that XML forbids; the XML library escapes `<` and `&`."""
    return _NOT_XML.sub('\ufffd', str(text))


def without_secrets(text: str) -> str:
    """Mask users, passwords and queries in URLs, and other likely secrets."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def say(text: object = '', file: IO[str] | None = None) -> None:
    """Print lines escaped as `for_log`, and for the stream's encoding."""
    stream = file or sys.stdout
    shown = '\n'.join(for_log(line) for line in str(text).split('\n'))
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    print(shown.encode(encoding, 'backslashreplace').decode(encoding), file=stream, flush=True)


def _escaped(character: str) -> str:
    return character.encode('unicode_escape', 'backslashreplace').decode('ascii')
