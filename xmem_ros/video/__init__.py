# SPDX-License-Identifier: MIT
"""Videos by PyAV, and clips: the frames of a video or of a folder."""
