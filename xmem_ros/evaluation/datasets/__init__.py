# SPDX-License-Identifier: MIT
"""Data sets in their published layouts: seeds, ground truth, and masks to write."""

from xmem_ros.evaluation.datasets.registry import DATASETS, Dataset, read_dataset
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence, check_size

__all__ = ['DATASETS', 'Dataset', 'Seed', 'Sequence', 'check_size', 'read_dataset']
