# SPDX-License-Identifier: MIT
"""Data sets on disk, in their published layouts: which masks seed, which are ground truth, what is written."""

from xmem_ros.evaluation.datasets.registry import DATASETS, Dataset, read_dataset
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence, check_size

__all__ = ['DATASETS', 'Dataset', 'Seed', 'Sequence', 'check_size', 'read_dataset']
