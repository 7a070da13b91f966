# SPDX-License-Identifier: MIT
"""How many images of a fast camera the node takes in and tracks.

    make bench RUN=node_throughput BENCH='[--seconds 20] [--json FILE]'

Camera (1280×720 at 30 Hz unless told otherwise, best effort), node and consumer are processes of their own, over DDS,
once with raw images and once with JPEG, in and out. Fast DDS gets config/fastdds.xml. `in` are the images that the node
got of those that were sent, `tracked` what it made of them; the rest it dropped for newer ones. Age: from the stamp to
the consumer's callback of the labels. CPU: what the node's process took for each second, in cores.
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
from xmem_ros.threads import wait_asleep

wait_asleep()

FASTDDS = Path(__file__).parents[1] / 'config' / 'fastdds.xml'
TRANSPORTS = ('raw', 'compressed')
IMAGES = 30  # of the clip, which is played again and again


def clip_of(size: tuple[int, int]) -> Any:
    """The rendered scene: H×W px, two objects."""
    from xmem_ros.demo.scene import RenderedScene

    return RenderedScene(size, 150, 2, seed=0)


def as_camera(transport: str, width: int, height: int, rate: float, log: str) -> None:
    """Publish images until interrupted; a line with the stamp of each in `log`."""
    import rclpy
    from node_harness import CAMERA
    from sensor_msgs.msg import CompressedImage, Image

    from xmem_ros.conversions.compressed_images import compressed_from_array
    from xmem_ros.conversions.images import image_from_array

    scene = clip_of((height, width))
    frames = [scene[number][0] for number in range(IMAGES)]
    if transport == 'compressed':
        messages = [compressed_from_array(frame, 'jpeg', CompressedImage) for frame in frames]
    else:
        messages = [image_from_array(frame, 'rgb8', Image) for frame in frames]
    rclpy.init()
    node = rclpy.create_node('camera')
    name = 'image/compressed' if transport == 'compressed' else 'image'
    publisher = node.create_publisher(type(messages[0]), name, CAMERA)
    with Path(log).open('w', buffering=1) as stamps:
        begin = time.monotonic()
        number = 0
        while rclpy.ok():
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            message = messages[number % IMAGES]
            stamp = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            publisher.publish(message)
            print(stamp, file=stamps)
            number += 1


def measure(transport: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one transport."""
    import node_harness as robots
    import psutil
    from robustness import processes
    from sensor_msgs.msg import CompressedImage, Image
    from tqdm import tqdm

    from xmem_ros.conversions.images import stamp_ns

    heard: list[tuple[int, int]] = []
    parameters = {
        'device': args.device,
        'weights': args.weights,
        'max_objects': 2,
        'image_transport': transport,
        'diagnostics_period': 0.2,
    }
    log = processes.Tail(folder / f'{transport}.log')
    command = (__file__, '--as-camera', transport, args.width, args.height, args.rate, log.path)
    node = processes.node(parameters)
    robot = processes.operator()
    eye = None
    try:
        node.says('active: waiting for images', robots.START_S)
        eye = processes.TrialProcess(tuple(map(str, command)))
        packed = transport == 'compressed'
        topic = f'{robot.prefix}/labels' + ('/compressed' if packed else '')
        robot.node.create_subscription(
            CompressedImage if packed else Image,
            topic,
            lambda message: heard.append((stamp_ns(message.header.stamp), time.time_ns())),
            robots.CAMERA,
        )
        robots.wait_until(lambda: heard, 'labels', robots.START_S)
        scene = clip_of((args.height, args.width))
        answer = robot.seed(robots.mask_seed(scene[0][1] == 1, 'it'))
        if not answer.success:
            raise SystemExit(answer.message)
        time.sleep(2.0)
        process = psutil.Process(node.process.pid)
        before, used = counts(robot), sum(process.cpu_times()[:2])
        log.read()
        heard.clear()
        begun = time.monotonic()
        for _ in tqdm(range(round(args.seconds)), desc=transport, unit='s', mininterval=5):
            time.sleep(1)
        seconds = time.monotonic() - begun
        ages = sorted((now - stamp) / 1e6 for stamp, now in heard)
        sent = len(log.read())
        used = sum(process.cpu_times()[:2]) - used
        after = counts(robot)
        seconds_counted = (after['at'] - before['at']) / 1e9
    finally:
        if eye is not None:
            eye.close()
        node.close()
        robot.close()
    if not ages:
        raise SystemExit(f'{transport}: no labels were heard')
    return {
        'transport': transport,
        'sent_per_s': sent / seconds,
        'in_per_s': (after['received'] - before['received']) / seconds_counted,
        'tracked_per_s': (after['tracked'] - before['tracked']) / seconds_counted,
        'lost_before_the_node': after['lost before the node'] - before['lost before the node'],
        'labels_heard_per_s': len(ages) / seconds,
        'age_ms': {
            'median': statistics.median(ages),
            'p95': ages[int(0.95 * (len(ages) - 1))],
            'longest': ages[-1],
        },
        'cores': used / seconds,
    }


def counts(robot: Any) -> dict[str, int]:
    """Of the next diagnostics, and when they came, ns."""
    values = robot.diagnostics(lambda values: 'received' in values, 'the node')
    names = ('received', 'tracked', 'lost before the node')
    return {name: int(values[name]) for name in names} | {'at': time.monotonic_ns()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=20.0, help='for each transport (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=30.0, help='images a second (default: %(default)s)')
    parser.add_argument('--width', type=int, default=1280, help='px (default: %(default)s)')
    parser.add_argument('--height', type=int, default=720, help='px (default: %(default)s)')
    parser.add_argument('--transports', choices=TRANSPORTS, nargs='+', default=TRANSPORTS, help='(default: both)')
    parser.add_argument('--device', default='auto', help='(default: %(default)s)')
    parser.add_argument('--weights', default='compact', help='(default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures here')
    args = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))  # a graph of its own
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(FASTDDS))
    with tempfile.TemporaryDirectory(prefix='xmem_throughput_') as name:
        rows = [measure(transport, args, Path(name)) for transport in args.transports]
    print(f'{args.width}×{args.height} at {args.rate:g} Hz, images a second')
    print(f'{"":12}{"sent":>8}{"in":>8}{"tracked":>9}{"heard":>8}{"lost":>6}{"age ms (p95, longest)":>26}{"cores":>7}')
    for row in rows:
        age = row['age_ms']
        print(
            f'{row["transport"]:12}{row["sent_per_s"]:8.1f}{row["in_per_s"]:8.1f}{row["tracked_per_s"]:9.1f}'
            f'{row["labels_heard_per_s"]:8.1f}{row["lost_before_the_node"]:6}'
            + f'{age["median"]:.0f} ({age["p95"]:.0f}, {age["longest"]:.0f})'.rjust(26)
            + f'{row["cores"]:7.2f}'
        )
    if args.json:
        write_text(args.json, json.dumps(rows, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    if sys.argv[1:2] == ['--as-camera']:
        # its arguments, and after them those for ROS
        kind, wide, high, hertz, path = sys.argv[2:7]
        as_camera(kind, int(wide), int(high), float(hertz), path)
    else:
        sys.exit(main())
