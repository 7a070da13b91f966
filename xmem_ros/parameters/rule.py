# SPDX-License-Identifier: MIT
"""Rule of a parameter: description, allowed values, and when it may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str | tuple[str, ...]

START, CONFIGURE, LIVE = 'start', 'configure', 'live'
WHEN = {
    START: 'only at the start of the node',
    CONFIGURE: 'while the node is unconfigured',
    LIVE: 'at any time',
}


@dataclass(frozen=True)
class Rule:
    """Description and allowed values of a parameter."""

    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    change: str = CONFIGURE  # START, CONFIGURE or LIVE
    unit: str = ''

    def allowed(self) -> str:
        """Return the allowed values in words; empty without a limit."""
        if self.choices:
            return ', '.join(self.choices)
        return '' if self.low is None or self.high is None else f'{_plain(self.low)}…{_plain(self.high)}'


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def parameter(default: Value, description: str, **rule: Any) -> Any:
    """Declare a parameter as a dataclass field; `rule` as for `Rule`."""
    return field(default=default, metadata={'rule': Rule(description, **rule)})
