# SPDX-License-Identifier: MIT
"""Options of the readers of data sets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadOptions:
    """Options that select the files to read and the masks to write; see `Settings`."""

    split: str = 'val'
    size: int = 480  # shorter side of the images in the network, px; 0: no scaling
    save_all: bool = False
    late_objects: bool = False
    sparse: bool = False
    ignore_void: bool = False
