# SPDX-License-Identifier: MIT
"""Text from outside, made safe for the place that shows it: terminal, log, CSV cell, XML.

Names of objects, topics and frames, file names, and messages of libraries can hold anything: escape sequences that
drive a terminal, line feeds that forge a log line, formulas that a spreadsheet runs, addresses with passwords. HTML is
escaped by its templates. No torch, no ROS.
"""

from __future__ import annotations

import re
import sys
from typing import IO

MOST_SHOWN = 2000  # characters of one line
_FORMULA = ('=', '+', '-', '@', '\t', '\r', '\uff1d', '\uff0b', '\uff0d', '\uff20')  # the wide ones count in some
_NOT_XML = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')  # XML 1.0, production 2
_SECRETS = (
    (re.compile(r'(?<=//)[^/?#\s@\'"]+@'), '***@'),  # user and password
    (re.compile(r'(://[^\s?#\'"<>]*\?)[^\s#\'"<>)]+'), r'\1***'),  # what a query says, such as a token or a signature
    (re.compile(r'(?i)\b((?:token|password|secret|api_?key)[=:]\s?)[^\s,;\'"]+'), r'\1***'),
    (re.compile(r'(?i)\b(authorization:?\s+(?:bearer|basic|token)\s+)[^\s,;\'"]+'), r'\1***'),
)


def for_log(text: object) -> str:
    """On one line, without what is not printable and without secrets; what is not printable is escaped."""
    shown = without_secrets(str(text))
    if len(shown) > MOST_SHOWN:
        shown = f'{shown[:MOST_SHOWN]}… ({len(shown)} characters)'
    return shown if shown.isprintable() else ''.join(c if c.isprintable() else _escaped(c) for c in shown)


def for_terminal(text: object) -> str:
    """As `for_log`, but with its lines; each but the first is indented, so that none is taken for one of ours."""
    first, *others = str(text).split('\n')
    return '\n'.join([for_log(first), *(f'  {for_log(line.strip())}' for line in others)])


def for_csv(text: object) -> str:
    """A cell that no spreadsheet takes for a formula: one that would begin one begins with an apostrophe."""
    shown = ''.join(c if c.isprintable() else _escaped(c) for c in str(text))
    return f"'{shown}" if str(text).startswith(_FORMULA) or shown.lstrip().startswith(_FORMULA) else shown


def for_xml(text: object) -> str:
    """Without characters that XML cannot hold; what escapes `<` and `&` is the library that writes it."""
    return _NOT_XML.sub('\ufffd', str(text))


def without_secrets(text: str) -> str:
    """Addresses without user, password and query, and other words that look like secrets blotted out."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def say(text: object = '', file: IO[str] | None = None) -> None:
    """Print a text of ours, line by line, with what it holds of others made safe; where its encoding ends, escaped."""
    stream = file or sys.stdout
    shown = '\n'.join(for_log(line) for line in str(text).split('\n'))
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    print(shown.encode(encoding, 'backslashreplace').decode(encoding), file=stream, flush=True)


def _escaped(character: str) -> str:
    return character.encode('unicode_escape', 'backslashreplace').decode('ascii')
