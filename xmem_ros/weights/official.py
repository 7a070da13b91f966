# SPDX-License-Identifier: MIT
"""The checkpoints that XMem's authors released, by the names that we give them."""

from __future__ import annotations

from dataclasses import dataclass

RELEASE = 'https://github.com/hkchengrex/XMem/releases/tag/v1.0'
DOWNLOADS = 'https://github.com/hkchengrex/XMem/releases/download/v1.0'


@dataclass(frozen=True)
class OfficialWeights:
    """One released file."""

    file: str
    megabytes: int  # as its entries need
    what: str

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
