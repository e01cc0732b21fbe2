"""The frames of a message as the journal keeps them."""

import hashlib
import struct
from collections.abc import Sequence

from ..wire import encode


def digest(job_type: str, frames: Sequence[bytes]) -> bytes:
    """Return what tells the content of a job from that of others."""
    content = hashlib.sha256(encode(job_type))
    for frame in frames:
        content.update(struct.pack('>Q', len(frame)))
        content.update(frame)
    return content.digest()


def pack(frames: Sequence[bytes]) -> bytes:
    """Put frames together."""
    return b''.join([struct.pack(f'>I{len(frames)}Q', len(frames), *map(len, frames)), *frames])


def unpack(packed: bytes) -> list[bytes]:
    """Take frames apart again."""
    (number,) = struct.unpack_from('>I', packed)
    lengths = struct.unpack_from(f'>{number}Q', packed, 4)
    frames, start = [], 4 + 8 * number
    for length in lengths:
        frames.append(packed[start : start + length])
        start += length
    return frames
