# SPDX-License-Identifier: MIT
"""What a data set's reader needs to know of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadOptions:
    """Choices that decide which files are read and which masks are written."""

    split: str = 'val'
    size: int = 480  # px of the shorter side that frames are tracked at; 0: as they come
    save_all: bool = False  # write the mask of every frame, not only those that are asked for
    late_objects: bool = False  # seed each object by the first mask that shows it, where only the first mask would seed
    sparse: bool = False  # track the annotated frames alone, where the data set has such a version
    ignore_void: bool = False  # 255 beside other values is no object
