# SPDX-License-Identifier: MIT
"""What the cards beside the bundled weights say of them."""

import re
from pathlib import Path


def licence_of(weights: Path) -> str:
    """The licence that a weights file's card names, as in 'CC BY-NC 4.0'; 'not stated' where there is no card."""
    try:
        card = weights.with_suffix('.md').read_text(encoding='utf-8')
    except OSError:
        card = ''
    found = re.search(r'^- \*\*Licence: (.+?)\.?\*\*', card, re.MULTILINE)
    return found.group(1) if found else 'not stated'
