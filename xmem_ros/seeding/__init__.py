# SPDX-License-Identifier: MIT
"""Seeds: masks of objects from masks, label images, boxes and points."""
