# SPDX-License-Identifier: MIT
"""Known weights: the checkpoints that XMem's authors released, and the licences of the bundled ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RELEASE = 'https://github.com/hkchengrex/XMem/releases/tag/v1.0'
DOWNLOADS = 'https://github.com/hkchengrex/XMem/releases/download/v1.0'


@dataclass(frozen=True)
class OfficialWeights:
    """One released file."""

    file: str
    megabytes: int  # as its entries need
    what: str

    @property
    def most_bytes(self) -> int:
        """That the file may have: its entries, and a tenth more."""
        return self.megabytes * 1_100_000

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        return f'{DOWNLOADS}/{self.file}'


OFFICIAL = {
    'xmem': OfficialWeights('XMem.pth', 249, 'static images, DAVIS and YouTube-VOS; the usual one'),
    'xmem-s012': OfficialWeights('XMem-s012.pth', 249, 'BL30K too'),
    'xmem-s2': OfficialWeights('XMem-s2.pth', 249, 'DAVIS and YouTube-VOS alone'),
    'xmem-no-sensory': OfficialWeights('XMem-no-sensory.pth', 239, 'without sensory memory'),
}


def official_name(name: str) -> str | None:
    """Our name of released weights, by that name or the file's, in any case; None for other names."""
    wanted = name.lower().removesuffix('.pth')
    return wanted if wanted in OFFICIAL else None


def licence_of(weights: Path) -> str:
    """The licence that a weights file's card names, as in 'CC BY-NC 4.0'; 'not stated' where there is no card."""
    try:
        card = weights.with_suffix('.md').read_text(encoding='utf-8')
    except OSError:
        card = ''
    found = re.search(r'^- \*\*Licence: (.+?)\.?\*\*', card, re.MULTILINE)
    return found.group(1) if found else 'not stated'
