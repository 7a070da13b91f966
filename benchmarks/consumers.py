# SPDX-License-Identifier: MIT
"""Image to mask with five consumers of the node against one, over DDS.

    make bench RUN=consumers BENCH='[--seconds 15] [--rounds 3] [--json FILE]'

Camera, node and every consumer are processes of their own. The first consumer (reliable) measures
the time from an image's stamp to its callback of the labels. It is alone in one phase. In the next
there are four more: another reliable one, two best-effort ones, and a slow reliable one, which
sleeps `--sleep` seconds in the callback of each message. All subscribe to `~/labels` and
`~/objects`. The phases alternate `--rounds` times, so that a machine that warms up or is busy for a
while changes both alike. `tracked/s` counts the images in the phase.

Exit code 1 if the median with five exceeds 1.2 times that with one. Run it on a quiet machine with
a core for the camera and the consumers; else the consumers take the tracker's own cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from node_speed import FASTDDS, as_camera, distribution, scene_of, seed_first

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

BAR = 1.2
ALONE, OTHERS = ('reliable', 0.0), (('reliable', 0.0), ('best_effort', 0.0), ('best_effort', 0.0), ('reliable', 1.0))
"""Reliability, and whether the consumer sleeps."""


def as_consumer(reliability: str, sleep_s: float, prefix: str, log: str) -> None:
    """Subscribe until interrupted; `log` gets stamp and arrival [ns] of each label image."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    from xmem_ros.conversions.images import stamp_ns
    from xmem_ros.msg import TrackedObjectArray

    profile = QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability.upper()])
    rclpy.init()
    node = rclpy.create_node('consumer')
    with Path(log).open('w', buffering=1) as notes:

        def labels(message: Any) -> None:
            print(stamp_ns(message.header.stamp), time.time_ns(), file=notes)
            time.sleep(sleep_s)

        node.create_subscription(Image, f'{prefix}/labels', labels, profile)
        node.create_subscription(TrackedObjectArray, f'{prefix}/objects', lambda _: time.sleep(sleep_s), profile)
        rclpy.spin(node)


class Consumers:
    """Processes of consumers; a context manager.

    Arguments:
        kinds: reliability and share of `sleep_s` of each.
        sleep_s: time that a slow one sleeps in a callback.
        prefix: name of the node.
        folder: for the logs.
    """

    def __init__(self, kinds: Any, sleep_s: float, prefix: str, folder: Path) -> None:
        from robustness import processes

        self._tails, self._processes = [], []
        for number, (reliability, slow) in enumerate(kinds):
            tail = processes.Tail(folder / f'{time.monotonic_ns()}_{number}.log')
            command = (__file__, '--as-consumer', reliability, str(slow * sleep_s), prefix, str(tail.path))
            self._tails.append(tail)
            self._processes.append(processes.TrialProcess(command))

    def __enter__(self) -> Consumers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.close()

    def wait(self) -> None:
        """Wait until each has received labels."""
        import node_harness as robots

        for tail in self._tails:
            robots.wait_until(tail.read, 'labels at a consumer', robots.START_S)

    def take(self, number: int = 0) -> list[tuple[int, int]]:
        """Return stamp and arrival [ns] of the label images since the last call."""
        return [(int(stamp), int(arrival)) for stamp, arrival in (line.split() for line in self._tails[number].read())]


def phase(first: Consumers, args: argparse.Namespace) -> list[tuple[int, int]]:
    """Return stamp and arrival [ns] of a phase's label images at the first consumer."""
    time.sleep(args.settle)
    first.take()
    time.sleep(args.seconds)
    return first.take()


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure both phases; number of consumers → figures."""
    import node_harness as robots
    from robustness import processes
    from tqdm import tqdm

    heard: dict[str, list[tuple[int, int]]] = {'1': [], '5': []}
    with tempfile.TemporaryDirectory(prefix='xmem_consumers_') as name:
        folder = Path(name)
        node = processes.node({'device': args.device, 'weights': args.weights, 'max_objects': 2})
        robot = processes.operator()
        log = str(folder / 'camera.log')
        camera = None
        try:
            node.says('active: waiting for images', robots.START_S)
            size = map(str, (args.width, args.height, args.rate))
            camera = processes.TrialProcess((__file__, '--as-camera', 'raw', *size, log))
            with Consumers([ALONE], args.sleep, robot.prefix, folder) as first:
                first.wait()
                seed_first(robot, scene_of((args.height, args.width)))
                for _ in tqdm(range(args.rounds), desc='rounds', mininterval=5):
                    heard['1'] += phase(first, args)
                    with Consumers(OTHERS, args.sleep, robot.prefix, folder) as others:
                        others.wait()
                        heard['5'] += phase(first, args)
        finally:
            if camera is not None:
                camera.close()
            node.close()
            robot.close()
    seconds = args.seconds * args.rounds
    return {
        count: {
            'consumers': int(count),
            'tracked_per_s': len(rows) / seconds,
            'image_to_mask_ms': distribution([(arrival - stamp) / 1e6 for stamp, arrival in rows]),
        }
        for count, rows in heard.items()
        if rows
    }


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: %(default)s)')
    parser.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=15.0, help='of each phase (default: %(default)s)')
    parser.add_argument('--settle', type=float, default=3.0, help='before each phase, s (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, help='of both phases (default: %(default)s)')
    parser.add_argument('--sleep', type=float, default=0.5, help='of the slow consumer, s (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    parser.add_argument('--width', type=int, default=1280, help='px (default: %(default)s)')
    parser.add_argument('--height', type=int, default=720, help='px (default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results to this file')
    args = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))  # a separate graph
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(FASTDDS))
    rows = measure(args)
    if len(rows) < 2:
        raise SystemExit('no labels arrived in a phase: give it more --seconds')
    print(f'{args.width}×{args.height} at {args.rate:g} Hz')
    print(f'{"consumers":>10}{"tracked/s":>11}{"image to mask, ms (p95)":>26}')
    for row in rows.values():
        age = row['image_to_mask_ms']
        cell = f'{age["median"]:.1f} ({age["p95"]:.1f})'
        print(f'{row["consumers"]:10}{row["tracked_per_s"]:11.1f}{cell:>26}')
    ratio = rows['5']['image_to_mask_ms']['median'] / rows['1']['image_to_mask_ms']['median']
    if args.json:
        found = {'rate': args.rate, 'ratio': ratio, 'rows': list(rows.values())}
        write_text(args.json, json.dumps(found, indent=2) + '\n')
    met = ratio <= BAR
    print(f'{"met" if met else "MISSED"}: with five consumers {ratio:.2f} times as with one, at most {BAR:g}')
    return 0 if met else 1


if __name__ == '__main__':
    if sys.argv[1:2] == ['--as-camera']:  # ROS arguments follow these five
        transport, width, height, rate, log = sys.argv[2:7]
        as_camera(transport, int(width), int(height), float(rate), log)
    elif sys.argv[1:2] == ['--as-consumer']:
        reliability, sleep_s, prefix, log = sys.argv[2:6]
        as_consumer(reliability, float(sleep_s), prefix, log)
    else:
        sys.exit(main())
