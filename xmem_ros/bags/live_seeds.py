# SPDX-License-Identifier: MIT
"""The seeds of a plan, shown to a live node through its service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import SeedError
from xmem_ros.srv import SeedObjects

if TYPE_CHECKING:
    from xmem_ros.client.link import NodeLink


class LiveSeeds:
    def __init__(self, seeds: Sequence[tuple[int, Any]], link: NodeLink) -> None:
        self._seeds, self._link = list(seeds), link

    def apply(self, index: int, stamp_ns: int) -> list[int]:
        ids: list[int] = []
        for at, messages in [s for s in self._seeds if s[0] == index]:
            request = SeedObjects.Request(seeds=messages)
            request.header.stamp.sec, request.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            answer = self._link.call(SeedObjects, 'seed', request)
            if not answer.success:
                raise SeedError(answer.message)
            ids += answer.ids
        return ids

    def check_unused(self, index: int, stamp_ns: int) -> None: ...

    def check_used(self) -> None: ...
