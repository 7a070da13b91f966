# SPDX-License-Identifier: MIT
"""Track recordings whose masks are known, and tell whether that has become worse."""
