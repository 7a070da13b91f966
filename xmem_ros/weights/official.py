# SPDX-License-Identifier: MIT
"""Official weights, released by XMem's authors, and licences of the bundled ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RELEASE = 'https://github.com/hkchengrex/XMem/releases/tag/v1.0'
DOWNLOADS = 'https://github.com/hkchengrex/XMem/releases/download/v1.0'


@dataclass(frozen=True)
class OfficialWeights:
    """A weights file that XMem's authors released."""

    file: str
    megabytes: int  # size of its tensors
    description: str

    @property
    def most_bytes(self) -> int:
        """Largest allowed size: `megabytes` and 10 % more."""
        return self.megabytes * 1_100_000

    @property
    def url(self) -> str:
        """Address of the file."""
        return f'{DOWNLOADS}/{self.file}'


OFFICIAL = {
    'xmem': OfficialWeights('XMem.pth', 249, 'trained on static images, DAVIS and YouTube-VOS; the default choice'),
    'xmem-s012': OfficialWeights('XMem-s012.pth', 249, 'also trained on BL30K'),
    'xmem-s2': OfficialWeights('XMem-s2.pth', 249, 'trained on DAVIS and YouTube-VOS only'),
    'xmem-no-sensory': OfficialWeights('XMem-no-sensory.pth', 239, 'without sensory memory'),
}


def official_name(name: str) -> str | None:
    """Return the name of official weights, given in any case, with or without .pth; else None."""
    wanted = name.lower().removesuffix('.pth')
    return wanted if wanted in OFFICIAL else None


def licence_of(weights: Path) -> str:
    """Return the licence in a weights file's card, as in 'CC BY-NC 4.0', or 'not stated'."""
    try:
        card = weights.with_suffix('.md').read_text(encoding='utf-8')
    except OSError:
        card = ''
    found = re.search(r'^- \*\*Licence: (.+?)\.?\*\*', card, re.MULTILINE)
    return found.group(1) if found else 'not stated'
