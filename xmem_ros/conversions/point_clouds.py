# SPDX-License-Identifier: MIT
"""Conversion of points to sensor_msgs/PointCloud2. No rclpy."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Make = Callable[..., Any]  # make('sensor_msgs/msg/PointField', **fields) returns the message

CLOUD = 'sensor_msgs/msg/PointCloud2'
FIELD = 'sensor_msgs/msg/PointField'
_UINT32, _FLOAT32 = 6, 7  # PointField's


def cloud_message(header: Any, points: np.ndarray, make: Make, fields: Mapping[str, np.ndarray] | None = None) -> Any:
    """Convert points to an unordered, dense cloud.

    Args:
        header: of the cloud.
        points: N×3 float32 [m], all finite; the fields x, y and z.
        make: makes messages by the names of their types.
        fields: name → N uint32, further fields.
    """
    names = ['x', 'y', 'z', *(fields or {})]
    rows = np.empty((len(points), len(names)), '<f4')
    rows[:, :3] = points
    for column, name in enumerate(names[3:], 3):
        rows[:, column].view('<u4')[:] = (fields or {})[name]
    data = array.array('B')
    data.frombytes(rows.reshape(-1).view(np.uint8).data)
    return make(
        CLOUD,
        header=header,
        height=1,
        width=len(points),
        fields=[
            make(FIELD, name=name, offset=4 * column, datatype=_FLOAT32 if column < 3 else _UINT32, count=1)
            for column, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=4 * len(names),
        row_step=4 * len(names) * len(points),
        data=data,
        is_dense=True,
    )


def points_of(message: Any) -> dict[str, np.ndarray]:
    """Return field name → N values of a cloud that `cloud_message` made."""
    kinds = {_UINT32: '<u4', _FLOAT32: '<f4'}
    dtype = np.dtype(
        {
            'names': [field.name for field in message.fields],
            'formats': [kinds[field.datatype] for field in message.fields],
            'offsets': [field.offset for field in message.fields],
            'itemsize': message.point_step,
        }
    )
    rows = np.frombuffer(message.data, dtype)
    return {name: rows[name].astype(rows[name].dtype.newbyteorder('='), copy=False) for name in dtype.names or ()}
