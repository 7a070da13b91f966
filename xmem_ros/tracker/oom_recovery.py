# SPDX-License-Identifier: MIT
"""Out-of-memory recovery: smaller chunks, a smaller store, smaller images."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from xmem_ros.errors import OutOfMemoryError
from xmem_ros.tracker.segmenter import Segmenter

T = TypeVar('T')

# Neither torch's CPU allocator nor ONNX Runtime has an error type of its own for this.
_TORCH_TEXTS = ("can't allocate memory", 'CUDA out of memory', 'ALLOC_FAILED', 'not enough memory')
_ONNX_RUNTIME_TEXTS = ('Failed to allocate memory', 'out of memory', 'bad_alloc')


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that device or host memory ran out."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    if type(error).__module__.startswith('onnxruntime'):  # these are no RuntimeErrors
        return any(text in str(error) for text in _ONNX_RUNTIME_TEXTS)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TORCH_TEXTS)


class OomRecovery:
    """Repeats work with a smaller segmenter until it fits; the segmenter stays that small.

    Arguments:
        segmenter: the segmenter to shrink. Work that fails must leave its state unchanged.
    """

    def __init__(self, segmenter: Segmenter):
        self._segmenter = segmenter
        self.given_up: list[str] = []  # in words, in order

    def run(self, work: Callable[[], T]) -> T:
        """Call `work`; raises `OutOfMemoryError` if nothing is left to give up."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            # outside of `except`: the error holds stack frames in which the failed tensors live
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            given_up = self._segmenter.shrink()
            if not given_up:
                raise OutOfMemoryError(
                    f'memory ran out, and nothing more can be given up ({reason}): free memory on '
                    f'{self._segmenter.device}, or configure a smaller size, max_objects or memory.budget_mb'
                )
            self.given_up.append(given_up)

    def consolidate(self) -> None:
        """Consolidate if due; without memory for it, drop the oldest working frames instead."""
        try:
            self.run(self._segmenter.consolidate)
        except OutOfMemoryError:
            self._segmenter.drop_oldest()
            self.given_up.append('working frames were dropped without being consolidated')
