# SPDX-License-Identifier: MIT
"""What the node adds to the tracker, from an image's stamp to a subscriber's callback.

    make bench RUN=node_latency BENCH='[--frames 200] [--rate 5] [--json FILE]'

The node runs as a process of its own, over DDS. A camera in this process stamps an image, publishes it, best effort,
and hears `~/labels` and `~/objects`. In the node's process the times are noted at which `Tracker.step` begins and ends
and at which publishing is done, by the clock that both processes share. Added is everything but the step:

    in      stamp → step: message to the middleware and through it, the node's queue, conversion
    out     end of the step → published: messages made and handed over
    across  published → the subscriber's callback of the labels

Fast DDS gets config/fastdds.xml, so that images come through whole. `rate` has to leave the node idle between two
images, or what is measured is waiting. Exit code 1 where the median at 640×480 is above 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text

SIZES = ((480, 640), (720, 1280))
BAR_MS, BAR_SIZE = 5.0, (480, 640)
FASTDDS = Path(__file__).parents[1] / 'config' / 'fastdds.xml'
NOTES = 'XMEM_ROS_LATENCY_NOTES'  # variable: file that the node's process writes to


def as_node() -> int:
    """Run the node, noting times: a line of stamp, begin and end of the step, end of publishing, all ns, a frame."""
    from xmem_ros.conversions.images import stamp_ns
    from xmem_ros.node import main as node_main
    from xmem_ros.node.publishers import Publishers
    from xmem_ros.tracker import Tracker

    step, publish, last = Tracker.step, Publishers.publish, [0, 0]
    with Path(os.environ[NOTES]).open('w', buffering=1) as notes:

        def timed_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            last[0] = time.monotonic_ns()
            result = step(self, *args, **kwargs)
            last[1] = time.monotonic_ns()
            return result

        def timed_publish(self: Any, header: Any, *args: Any) -> None:
            publish(self, header, *args)
            print(stamp_ns(header.stamp), *last, time.monotonic_ns(), file=notes)

        Tracker.step, Publishers.publish = timed_step, timed_publish  # type: ignore[method-assign]
        return node_main.main()


def measure(size: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """Medians and 95th percentiles for images of one size, ms."""
    import node_harness as robots
    from sensor_msgs.msg import Image

    from xmem_ros.conversions.images import image_from_array, stamp_ns
    from xmem_ros.demo.scene import RenderedScene
    from xmem_ros.msg import TrackedObjectArray

    scene = RenderedScene(size, 150, 2, seed=0)
    messages = [image_from_array(scene[number][0], 'rgb8', Image) for number in range(50)]
    heard: dict[str, dict[int, int]] = {'labels': {}, 'objects': {}}

    def hear(topic: str, kind: type) -> None:
        def callback(message: Any) -> None:
            heard[topic].setdefault(stamp_ns(message.header.stamp), time.monotonic_ns())

        robot.node.create_subscription(kind, f'{robot.prefix}/{topic}', callback, robots.CAMERA)

    with tempfile.NamedTemporaryFile('r', suffix='.txt') as notes:
        os.environ[NOTES] = notes.name
        parameters = {'device': args.device, 'weights': args.weights, 'max_objects': 1}
        with robots.running(parameters, camera=robots.CAMERA) as robot:
            hear('labels', Image)
            hear('objects', TrackedObjectArray)
            robots.wait_until(lambda: robot.node.count_publishers(f'{robot.prefix}/labels'), 'the labels')
            _seed(robot, scene, messages[0], heard)
            for number in range(args.frames + args.warm_up):
                begin = time.monotonic()
                message = messages[number % len(messages)]
                stamp = time.monotonic_ns()
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
                robot.images.publish(message)
                time.sleep(max(0.0, 1 / args.rate - (time.monotonic() - begin)))
            time.sleep(1.0)
        lines = [tuple(map(int, line.split())) for line in notes.read().splitlines()]
    rows = []
    for stamp, begun, ended, published in lines[args.warm_up :]:
        if stamp in heard['labels'] and stamp in heard['objects']:
            labels, objects = heard['labels'][stamp], heard['objects'][stamp]
            row = {'step': ended - begun, 'in': begun - stamp, 'out': published - ended, 'across': labels - published}
            row |= {'added': labels - stamp - row['step'], 'added, objects': objects - stamp - row['step']}
            rows.append({name: value / 1e6 for name, value in row.items()})
    result: dict[str, Any] = {
        'height': size[0],
        'width': size[1],
        'sent': args.frames,
        'tracked': len(lines) - args.warm_up,
    }
    result['frames'] = len(rows)
    if not rows:
        raise SystemExit(f'{size}: no image and its labels came through')
    for name in rows[0]:
        values = sorted(row[name] for row in rows)
        result[name] = {'median': statistics.median(values), 'p95': values[int(0.95 * (len(values) - 1))]}
    return result


def _seed(robot: Any, scene: Any, message: Any, heard: dict[str, dict[int, int]]) -> None:
    """Show an image until the node has heard it, and seed an object in it."""
    import node_harness as robots

    end = time.monotonic() + 60
    while not heard['objects']:
        if time.monotonic() > end:
            raise SystemExit('the node heard no image in 60 s')
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.monotonic_ns(), 1_000_000_000)
        robot.images.publish(message)
        time.sleep(0.5)
    answer = robot.seed(robots.mask_seed(scene[0][1] == 1, 'it'))
    if not answer.success:
        raise SystemExit(answer.message)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=int, default=200, help='(default: %(default)s)')
    parser.add_argument('--warm-up', type=int, default=10, help='frames that do not count (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=5.0, help='images a second (default: %(default)s)')
    parser.add_argument('--device', default='auto', help='(default: %(default)s)')
    parser.add_argument('--weights', default='compact', help='(default: %(default)s)')
    parser.add_argument('--default-transport', action='store_true', help='of Fast DDS, instead of config/fastdds.xml')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    args = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))  # a graph of its own
    if not args.default_transport:
        os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(FASTDDS))
    import node_harness as robots

    robots.NodeProcess.program = (str(Path(__file__).resolve()), '--as-node')
    rows = [measure(size, args) for size in SIZES]
    names = ('step', 'in', 'out', 'across', 'added', 'added, objects')
    print(f'{"median (p95), ms":20}{"heard/tracked/sent":>20}' + ''.join(f'{name:>18}' for name in names))
    for row in rows:
        cells = ''.join(f'{row[n]["median"]:10.2f} ({row[n]["p95"]:.2f})'.rjust(18) for n in names)
        print(
            f'{row["width"]}×{row["height"]}'.ljust(20)
            + f'{row["frames"]}/{row["tracked"]}/{row["sent"]}'.rjust(20)
            + cells
        )
    if args.json:
        write_text(args.json, json.dumps({'rate': args.rate, 'rows': rows}, indent=2) + '\n')
    judged = next(row for row in rows if (row['height'], row['width']) == BAR_SIZE)
    good = judged['added']['median'] <= BAR_MS
    verdict = 'met' if good else 'MISSED'
    print(f'{verdict}: the node adds {judged["added"]["median"]:.2f} ms at 640×480, at most {BAR_MS:g}')
    return 0 if good else 1


if __name__ == '__main__':
    if '--as-node' in sys.argv:
        sys.argv.remove('--as-node')
        sys.exit(as_node())
    sys.exit(main())
