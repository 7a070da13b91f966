# SPDX-License-Identifier: MIT
"""Kinds `frames`, `video` and `mask`: mutated image files and videos."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
from PIL import Image

from fuzz.kinds import Kind, encoded, frames, mask, saved, track
from fuzz.mutation import Source, mutate_bytes
from fuzz.sandbox import Link, Places

SIDES = [0, 1, 2, 16, 24, 4096, 30_000, 65_535, 65_536, 2**20, 2**31 - 1, 2**32 - 1]
MOST_IMAGE = 16 << 20  # bytes; formats without compression would fill the memory
PLAYLISTS = [
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:@PORT@/a.ts\n#EXT-X-ENDLIST\n',
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n@CANARY@/keep.txt\n#EXT-X-ENDLIST\n',
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:@PORT@/k"\n#EXTINF:1,\n../canary/keep.txt\n',
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n@CANARY@/keep.ts\n#EXT-X-ENDLIST\n',
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:@CANARY@/keep.mp4\n#EXT-X-ENDLIST\n',
    '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../canary/keep.ts\n#EXT-X-ENDLIST\n',
    'ffconcat version 1.0\nfile @CANARY@/keep.mp4\n',
    'ffconcat version 1.0\nfile ../canary/keep.mp4\n',
    'ffconcat version 1.0\nfile http://127.0.0.1:@PORT@/x\n',
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation id="1" '
    'bandwidth="1"><BaseURL>http://127.0.0.1:@PORT@/x</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>',
    'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video @PORT@ RTP/AVP 96\n',
    '<svg xmlns="http://www.w3.org/2000/svg"><image href="@CANARY@/keep.txt"/></svg>',
    '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 32\n',
]
KINDS = {'.png': 'PNG', '.jpg': 'JPEG', '.bmp': 'BMP', '.tif': 'TIFF', '.webp': 'WEBP'}


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split a PNG into chunks: type and content."""
    place, found = 8, []
    while place + 12 <= len(data):
        (length,) = struct.unpack_from('>I', data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


@functools.cache
def zeros(count: int) -> bytes:
    """Compress so many zeros."""
    return zlib.compress(bytes(count), 9)


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Join chunks into a PNG with valid checksums."""
    parts = [
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def mutate_png(source: Source, data: bytes) -> bytes:
    """Mutate chunks: image size, duplicates, decompression bombs."""
    chunks = png_chunks(data)
    for _ in source.several():
        kind = source.between(0, 5)
        place = source.between(0, len(chunks) - 1) if chunks else 0
        source.note(f'PNG: {kind} at {place}')
        if kind == 0 and chunks:
            head = list(struct.unpack('>IIBBBBB', chunks[0][1][:13].ljust(13, b'\0')))
            field = source.between(0, 6)
            head[field] = source.pick(SIDES) if field < 2 else source.between(0, 255)
            chunks[0] = (b'IHDR', struct.pack('>IIBBBBB', *head))
        elif kind == 1:
            bomb = zeros(source.pick([10**5, 10**7, 10**8]))
            name = source.pick([b'zTXt', b'iCCP', b'iTXt'])
            text = b'x\0\0' if name != b'iTXt' else b'x\0\1\0\0\0'
            chunks.insert(min(1, len(chunks)), (name, text + bomb))
        elif kind == 2 and chunks:
            chunks[place] = (chunks[place][0], mutate_bytes(source, chunks[place][1]))
        elif kind == 3 and chunks:
            chunks.insert(place, chunks[place])
        elif kind == 4 and chunks:
            chunks.pop(place)
        else:
            extra = source.pick([b'acTL', b'fcTL', b'eXIf', b'PLTE', b'tRNS', b'gAMA', b'cHRM', b'IDAT', b'tIME'])
            chunks.insert(min(1, len(chunks)), (extra, source.data() * source.pick([1, 1, 1000])))
    return png_of(chunks)


def mutate_sides(source: Source, data: bytes, suffix: str) -> bytes:
    """Replace the image size in the header."""
    side = source.pick(SIDES)
    source.note(f'{suffix}: side {side}')
    if suffix == '.jpg':
        place = next((i for kind in (0xC0, 0xC2) if (i := data.find(bytes([0xFF, kind]))) >= 0), 0)
        return data[: place + 5] + struct.pack('>HH', side % 65536, source.pick(SIDES) % 65536) + data[place + 9 :]
    if suffix == '.bmp':
        return data[:18] + struct.pack('<II', side % 2**32, source.pick(SIDES) % 2**32) + data[26:]
    if suffix == '.tif':
        place = struct.unpack_from('<I', data, 4)[0] + 2 + 12 * source.between(0, 9)
        return data[: place + 8] + struct.pack('<I', side % 2**32) + data[place + 12 :]
    if suffix == '.webp':
        return data[:26] + struct.pack('<HH', side % 65536, source.pick(SIDES) % 65536) + data[30:]
    return mutate_png(source, data)


def mutate_image(source: Source, data: bytes, suffix: str) -> bytes:
    """Mutate an image file by its structure or its bytes."""
    kind = source.between(0, 9)
    if kind < 4:
        return mutate_sides(source, data, suffix)
    if kind < 6 and suffix == '.png':
        return mutate_png(source, data)
    if kind == 6:
        return odd_image(source)
    if kind == 7:
        return playlist(source)
    return mutate_bytes(source, data)


def odd_image(source: Source) -> bytes:
    """Build a valid image file of an unexpected format or mode."""
    mode = source.pick(['1', 'L', 'P', 'LA', 'RGBA', 'CMYK', 'I', 'F', 'I;16', 'YCbCr'])
    form = source.pick(['PNG', 'JPEG', 'TIFF', 'GIF', 'WEBP', 'BMP', 'PPM', 'TGA', 'ICO', 'PCX', 'EPS', 'PDF', 'DDS'])
    source.note(f'{form} {mode}')
    size = source.pick([(32, 24), (24, 32), (1, 1), (1, 3000), (9000, 9000)])
    turned = source.between(0, 9)
    data = _image_file(mode, form, size, turned)
    return data if len(data) < MOST_IMAGE else _image_file(mode, form, (24, 32), turned)


@functools.lru_cache(64)
def _image_file(mode: str, form: str, size: tuple[int, int], turned: int) -> bytes:
    stream = io.BytesIO()
    image = Image.new('RGB', size, (9, 90, 200)).convert(mode) if mode != 'I;16' else Image.new(mode, size, 9)
    exif = Image.Exif()
    exif[0x0112] = turned
    options: dict[str, Any] = {'exif': exif} if form in ('PNG', 'JPEG', 'TIFF', 'WEBP') else {}
    try:
        image.save(stream, form, **options)
    except (OSError, ValueError, KeyError):
        return b''
    return stream.getvalue()


def playlist(source: Source) -> bytes:
    """Build a playlist, or another file that names files and addresses."""
    text = source.pick(PLAYLISTS).replace('@CANARY@', source.canary).replace('@PORT@', str(source.port))
    source.note(text[:20])
    return text.encode()


def _make_frames() -> list[dict[str, bytes]]:
    return [{f'walk/{i}{suffix}': encoded(frame, suffix) for i, frame in enumerate(frames())} for suffix in KINDS]


def _mutate_frames(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    found: dict[str, bytes | Link] = dict(files)
    name = source.pick(sorted(files))
    kind = source.between(0, 9)
    if kind < 7:
        found[name] = mutate_image(source, files[name], Path(name).suffix)
    elif kind == 7:
        target = source.pick(['/dev/zero', '.', 'missing', '/proc/self/environ', '0.png'])
        source.note(f'link to {target}')
        found[name] = Link(target)
    else:
        new = f'walk/{source.text()}'[:200] + Path(name).suffix
        source.note(f'name {new[:60]!r}')
        found[new] = found.pop(name)
    return found


def _use_frames(places: Places) -> int:
    return track(places, places.input / 'walk', '--box', 'it=6,6,12,10', '--format', 'png', '--format', 'coco')


def _mutate_mask(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    (name,) = (name for name in files if name.startswith('mask'))
    return {**files, name: mutate_image(source, files[name], Path(name).suffix)}


def _use_mask(places: Places) -> int:
    (given,) = places.input.glob('mask.*')
    return track(places, places.input / 'walk', '--seed', str(given), '--format', 'png')


def _make_mask() -> list[dict[str, bytes]]:
    clip = _make_frames()[0]
    palette = io.BytesIO()
    image = Image.fromarray(mask())
    image.putpalette(bytes(range(256)) * 3)
    image.save(palette, 'PNG')
    return [{**clip, 'mask.png': palette.getvalue()}, {**clip, 'mask.tif': encoded(mask(), '.tif')}]


def _make_video() -> list[dict[str, bytes]]:
    codes = {
        'v.mp4': 'libx264',
        'w.mp4': 'mpeg4',
        'v.avi': 'mjpeg',
        'v.mkv': 'mpeg4',
        'v.webm': 'libvpx-vp9',
        'v.ts': 'libx264',
        'v.flv': 'flv',
    }
    return [{name: saved(lambda path, code=code: _write_video(path, code), name)} for name, code in codes.items()]


def _write_video(path: Path, code: str) -> None:
    # without the random identifiers of Matroska
    with av.open(str(path), 'w', container_options={'fflags': '+bitexact'}) as container:
        stream = container.add_stream(code, rate=10)
        stream.height, stream.width = 24, 32
        stream.pix_fmt = 'yuvj420p' if code == 'mjpeg' else 'yuv420p'
        stream.codec_context.gop_size, stream.codec_context.thread_count = 3, 1
        for frame in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))


def _mutate_times(source: Source, name: str, data: bytes) -> bytes:
    """Replace numbers that are times, rates or counts of frames in a container."""
    number = source.pick([0, 1, 2, 10, 90_000, 2**15, 2**31 - 1, 2**31, 2**32 - 1])
    found = bytearray(data)
    if name.endswith('.mp4'):
        box = source.pick([b'mdhd', b'mvhd', b'stts', b'ctts', b'elst', b'tkhd', b'stsz'])
        place = data.find(box)
        offset = place + 8 + 4 * source.between(0, 4)
        source.note(f'{box!r} at {offset}: {number}')
        if place >= 0 and offset + 4 <= len(found):
            struct.pack_into('>I', found, offset, number)
    elif name.endswith('.avi'):
        box = source.pick([b'avih', b'strh', b'idx1'])
        place = data.find(box)
        offset = place + 8 + 4 * source.between(0, 12)
        source.note(f'{box!r} at {offset}: {number}')
        if place >= 0 and offset + 4 <= len(found):
            struct.pack_into('<I', found, offset, number)
    elif name.endswith('.ts'):
        starts = [place for place in range(len(data)) if data.startswith(b'\0\0\1\xe0', place)]
        for place in starts if source.chance(20) else [source.pick(starts)]:
            offset = place + 9 + source.between(0, 9)
            source.note(f'time at {offset}')
            found[offset : offset + 2] = struct.pack('>H', number % 65536)[: len(found) - offset]
    else:  # Matroska: cluster, block, duration, scale; FLV: tags
        marks = [b'\xe7', b'\xa3', b'\x44\x89', b'\x2a\xd7\xb1', b'\x23\xe3\x83', b'\t\0']
        places = [place for mark in marks for place in range(len(data)) if data.startswith(mark, place)]
        offset = source.pick(places) + source.between(1, 8)
        source.note(f'number at {offset}')
        found[offset : offset + 2] = struct.pack('>H', number % 65536)[: max(len(found) - offset, 0)]
    return bytes(found)


def _boxes(data: bytes, low: int, high: int) -> list[tuple[int, int, bytes]]:
    """Find the offsets and types of all boxes of an MP4."""
    found = []
    while low + 8 <= high:
        length, kind = struct.unpack_from('>I4s', data, low)
        if length < 8:
            break
        found.append((low, low + length, kind))
        if kind in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stsd', b'mp4v', b'avc1', b'edts', b'dinf'):
            skip = {b'stsd': 16, b'mp4v': 86, b'avc1': 86}.get(kind, 8)
            found += _boxes(data, low + skip, min(low + length, high))
        low += length
    return found


def _mutate_video(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    ((name, data),) = files.items()
    kind = source.between(0, 9)
    if kind == 0:
        return {source.pick([name, 'v.m3u8', 'v.txt', 'v_%02d.png', 'v.ffconcat', 'v.sdp']): playlist(source)}
    if kind == 1:
        return {name: odd_image(source)}
    if kind < 4:
        return {name: _mutate_times(source, name, data)}
    if kind < 6 and name.endswith('.mp4'):
        boxes = _boxes(data, 0, len(data))
        low, high, box = source.pick(boxes)
        source.note(f'box {box!r}')
        if source.chance(20):
            return {name: data[:low] + data[low:high] * source.pick([0, 2, 100]) + data[high:]}
        return {name: mutate_bytes(source, data, low, high)}
    if kind < 6:
        return {name: mutate_bytes(source, data, 0, 4000)}
    return {name: mutate_bytes(source, data)}


def _use_video(places: Places) -> int:
    (video,) = places.input.iterdir()
    return track(places, video, '--box', 'it=6,6,12,10', '--format', 'png', '--overlay')


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    return [
        Kind('frames', _make_frames, _mutate_frames, _use_frames),
        Kind('video', _make_video, _mutate_video, _use_video),
        Kind('mask', _make_mask, _mutate_mask, _use_mask),
    ]
