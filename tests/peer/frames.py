"""Frames: what a record of a carrier holds."""

import struct

from keys import Failure
from stream import Aborted, extensions

PAD, OPEN, OPENED, DATA, END, ABORT, CREDIT, MOVED, GOAWAY, DONE = range(10)
HEADER = 7
FRAMES_MAX = 16384


def encode(kind, stream, payload=b""):
    return struct.pack(">BIH", kind, stream, len(payload)) + payload


def decode(body):
    """The frames of a record: kind, stream, payload. Rule C7, as far as form goes."""
    frames, at = [], 0
    while at < len(body):
        if body[at] == PAD:
            if any(body[at:]):
                raise Failure("violation: padding that is not zero")
            break
        if body[at] > DONE:
            raise Failure(f"violation: a frame of type {body[at]}")
        if len(body) - at < HEADER:
            raise Failure("violation: a frame that is cut")
        kind, stream, length = struct.unpack_from(">BIH", body, at)
        at += HEADER
        payload = body[at : at + length]
        at += length
        if at > len(body):
            raise Failure("violation: a frame over the end of its record")
        check(kind, stream, payload)
        frames.append((kind, stream, payload))
    return frames


def check(kind, stream, payload):
    if (stream == 0) != (kind == GOAWAY):
        raise Failure(f"violation: a frame of type {kind} in stream {stream}")
    lengths = {END: 0, MOVED: 0, DONE: 0, ABORT: 1, GOAWAY: 1, CREDIT: 4}
    if kind in lengths and len(payload) != lengths[kind]:
        raise Failure(f"violation: a frame of type {kind} with {len(payload)} bytes")
    if kind == DATA and not payload:
        raise Failure("violation: no data")
    if kind == CREDIT and not any(payload):
        raise Failure("violation: credit of 0")
    if kind in (OPEN, OPENED):
        try:
            extensions(payload)
        except Aborted:
            pass  # One stream's matter.
