# SPDX-License-Identifier: MIT
"""The bundled weights, and finding, fetching and reading weights."""
