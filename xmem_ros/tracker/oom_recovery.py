# SPDX-License-Identifier: MIT
"""What a tracker does without, step by step, when the device's memory runs out."""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from xmem_ros.engines.onnx_runtime import OnnxNetwork
from xmem_ros.errors import OutOfMemoryError
from xmem_ros.tracker.segmenter import Segmenter

T = TypeVar('T')

CHUNKS = 16  # parts that a read is made in
LEAST_SIZE = 96  # px of the shorter side; a network of stride 16 sees little below
_SAID_BY = ("can't allocate memory", 'CUDA out of memory', 'ALLOC_FAILED', 'not enough memory')
_SAID_BY_ONNX_RUNTIME = ('Failed to allocate memory', 'out of memory', 'bad_alloc')


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the device's or the host's, could not be had."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    if type(error).__module__.startswith('onnxruntime'):  # no RuntimeErrors
        return any(text in str(error) for text in _SAID_BY_ONNX_RUNTIME)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID_BY)


class Shedding:
    """Runs work again with less, until it fits. What was given up stays given up.

    Arguments:
        segmenter: whose memory is shed. Work must leave it as it was where it fails.
    """

    def __init__(self, segmenter: Segmenter):
        self._segmenter = segmenter
        self._chunked = self._halved = False
        self.done: list[str] = []  # what was given up, in words

    def run(self, work: Callable[[], T]) -> T:
        """Do some work; raises `OutOfMemoryError` where nothing more can be given up."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            # outside of `except`: the error holds the frames in which the failed tensors still live
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            given_up = self._give_up()
            if not given_up:
                raise OutOfMemoryError(
                    f'memory ran out, and nothing more can be given up ({reason}): free memory on '
                    f'{self._segmenter.device}, or configure a smaller size, max_objects or memory.budget_mb'
                )
            self.done.append(given_up)

    def consolidate(self) -> None:
        """Make prototypes where that is due; where there is no memory for it, let the oldest frames go instead."""
        try:
            self.run(self._segmenter.consolidate)
        except OutOfMemoryError:
            if self._segmenter.memory is not None:
                self._segmenter.memory.forget_oldest()
            self.done.append('working frames were dropped without being consolidated')

    def _give_up(self) -> str:
        segmenter = self._segmenter
        if segmenter.memory is not None and not self._chunked:
            smaller = segmenter.memory.similarity_bytes // CHUNKS
            segmenter.release_stores()
            segmenter.similarity_bytes, self._chunked = smaller, True
            return 'memory is read in smaller parts'
        config = segmenter.memory_config
        if not self._halved and config.long_term and config.long_term_elements // 2 >= config.prototypes:
            held = segmenter.memory.config.long_term_elements if segmenter.memory is not None else None
            elements = (held or config.long_term_elements) // 2
            segmenter.release_stores()
            segmenter.memory_config = replace(config, long_term_elements=max(elements, config.prototypes))
            self._halved = True
            return f'long-term memory was halved to {segmenter.memory_config.long_term_elements} elements'
        if isinstance(segmenter.network, OnnxNetwork):
            return ''  # another size is other models: to export and load them takes more memory, not less
        size = segmenter.config.size or (min(segmenter.wanted_size) if segmenter.wanted_size else LEAST_SIZE)
        if size > LEAST_SIZE:
            smaller = max(int(size * 0.75), LEAST_SIZE)
            segmenter.release_stores()
            segmenter.config = replace(segmenter.config, size=smaller)
            return f'the working size was lowered to {smaller} px'
        return ''
