"""A carrier: which frames may come, the records around them, and its life (C3 to C20)."""

import threading
import time
from collections import deque

import frames
from carried_stream import PATIENCE, Stream
from frames import (
    ABORT, CREDIT, DATA, DONE, END, FRAMES_MAX, GOAWAY, MOVED, OPEN, OPENED,
)
from keys import Failure, hkdf
from stream import Aborted, Cut, extensions
from stream import FRAMES as RECORD_FRAMES

CREDIT_MAX = 2**31 - 1
CIPHERTEXT_MAX = 1 + FRAMES_MAX + 16
# Rule C17, in seconds.
SIGN_OF_LIFE, SILENCE_MAX = 4, 15


def join_proof(secret, handshake_hash, stream):
    """Rule C10."""
    return hkdf(secret, handshake_hash, b"join" + stream.to_bytes(4, "big"), 16)


class Carrier:
    """One side. A thread reads, another one writes; `changed` is the lock of all state."""

    def __init__(self, tunnel, role, allowed, secret, options, serve=None):
        self.tunnel, self.role, self.allowed, self.secret = tunnel, role, allowed, secret
        self.ignores_credit, self.is_silent = options.ignore_credit, options.silent
        self.serve = serve
        self.changed = threading.Condition(threading.RLock())
        self.streams, self.highest = {}, 0
        self.outbox, self.is_closing, self.failed = deque(), False, None
        self.gone_away = None
        self.writer = threading.Thread(target=self.write, daemon=True)

    # Writing.

    def say(self, stream, kind, payload=b""):
        """Under the lock."""
        if kind not in (DATA, CREDIT):
            stream.said.add(kind)
        self.outbox.append((stream, kind, frames.encode(kind, stream.number, payload)))
        self.changed.notify_all()

    def go_away(self, reason):
        self.say_record(RECORD_FRAMES, frames.encode(GOAWAY, 0, bytes([reason])))

    def say_record(self, kind, body):
        """A whole record, of whichever kind."""
        with self.changed:
            self.outbox.append((None, "record", (kind, body)))
            self.changed.notify_all()

    def drop(self, stream):
        """Under the lock: what is said of the stream and not written."""
        self.outbox = deque(item for item in self.outbox if item[0] is not stream)

    def next_record(self):
        """What goes into the next record: its kind and body; None when all is written."""
        with self.changed:
            ready = lambda: self.outbox or self.is_closing or self.failed
            self.changed.wait_for(ready, SIGN_OF_LIFE)
            if self.failed or (self.is_closing and not self.outbox):
                return None
            if self.outbox and self.outbox[0][1] == "record":
                return self.outbox.popleft()[2]
            body = b""
            while self.outbox and self.outbox[0][1] != "record":
                stream, kind, frame = self.outbox[0]
                if len(body) + len(frame) > FRAMES_MAX and body:
                    break
                self.outbox.popleft()
                if stream:
                    stream.written.add(kind)
                body += frame
            return RECORD_FRAMES, body

    def write(self):
        try:
            while (record := self.next_record()) is not None:
                kind, body = record
                if kind == RECORD_FRAMES and not body and self.is_silent:
                    continue
                if kind == RECORD_FRAMES and self.tunnel.pad:
                    body += bytes(min(-len(body) % self.tunnel.pad, max(0, FRAMES_MAX - len(body))))
                self.tunnel.write(self.tunnel.seal(kind, body))
            if not self.failed:
                self.tunnel.cut()
        except Failure as failure:
            self.fail(failure)

    # Reading.

    def run(self):
        """Reads to the end of the carrier; raises what has ended it, if not C20."""
        self.writer.start()
        try:
            while True:
                deadline = time.monotonic() + SILENCE_MAX
                kind, body = self.tunnel.read(CIPHERTEXT_MAX, deadline=deadline)
                if kind != RECORD_FRAMES:
                    raise Failure(f"violation: kind {kind} on a carrier")
                for frame in frames.decode(body):
                    with self.changed:
                        self.take(*frame)
        except Cut as cut:
            with self.changed:
                may_end = self.role == "responder" or self.is_closing
                is_clean = cut.at_boundary and may_end and not self.streams and not self.failed
            if not is_clean:
                self.fail(cut)
                raise
        except Failure as failure:
            self.fail(failure)
            raise
        self.close()
        self.writer.join(PATIENCE)

    def close(self):
        """Ends this direction of TCP, behind all that was said."""
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()

    def fail(self, failure):
        """C18; streams that have left are none of this carrier's (C15)."""
        with self.changed:
            self.failed = self.failed or str(failure)
            for stream in list(self.streams.values()):
                if stream.session:
                    stream.session.close()
                stream.end(f"carrier: {self.failed}")
            self.changed.notify_all()

    def take(self, kind, number, payload):
        """Under the lock: a frame whose form is right."""
        if kind == GOAWAY:
            return self.take_goaway(payload[0])
        if kind == OPEN:
            return self.take_open(number, payload)
        if number > self.highest:
            raise Failure("violation: a frame of a stream that was never opened")
        stream = self.streams.get(number)
        if stream is None:
            return None  # C6
        self.check_order(stream, kind)
        stream_takes = {
            OPENED: self.take_opened, DATA: self.take_data, END: self.take_end,
            DONE: self.take_done, ABORT: self.take_abort, CREDIT: self.take_credit,
            MOVED: self.take_moved,
        }
        stream_takes[kind](stream, payload)
        self.changed.notify_all()

    def check_order(self, stream, kind):
        heard = stream.heard
        if kind == OPENED and self.role == "responder":
            raise Failure("violation: OPENED from an initiator")
        if self.role == "initiator" and OPENED not in heard and kind not in (OPENED, ABORT):
            raise Failure("violation: a stream that was not answered yet")
        if kind in (OPENED, END, DONE, MOVED) and kind in heard:
            raise Failure(f"violation: a frame of type {kind} twice")
        if kind == DATA and END in heard or kind in (DATA, END, DONE) and MOVED in heard:
            raise Failure(f"violation: a frame of type {kind} after the end of its direction")
        if DONE in heard and (kind == ABORT or kind == MOVED and self.role == "initiator"):
            raise Failure(f"violation: a frame of type {kind} after DONE")
        if kind == DONE and not (END in heard and END in stream.written):
            raise Failure("violation: DONE before END went both ways")

    def take_goaway(self, reason):
        if self.role == "responder" or self.gone_away is not None:
            raise Failure("violation: GOAWAY from an initiator, or twice")
        self.gone_away = reason
        self.changed.notify_all()

    def take_open(self, number, payload):
        if self.role == "initiator" or number <= self.highest:
            raise Failure("violation: OPEN from a responder, or out of order")
        if len(self.streams) >= self.allowed:
            raise Failure("violation: more streams than are allowed")
        self.highest = number
        stream = self.streams[number] = Stream(self, number, payload)
        stream.heard.add(OPEN)
        self.serve(stream)

    def take_opened(self, stream, payload):
        stream.heard.add(OPENED)
        try:
            extensions(payload)
        except Aborted as aborted:
            stream.abort(aborted.reason)

    def take_data(self, stream, payload):
        if len(payload) > stream.window:
            raise Failure("violation: data beyond the credit")
        stream.window -= len(payload)
        stream.held.append(payload)

    def take_end(self, stream, _payload):
        stream.heard.add(END)

    def take_done(self, stream, _payload):
        stream.heard.add(DONE)
        if DONE in stream.said:
            stream.end("clean")

    def take_abort(self, stream, payload):
        self.drop(stream)
        if stream.session:
            stream.session.close()
        stream.end(str(Aborted(payload[0], "the other end")))

    def take_credit(self, stream, payload):
        if {END, MOVED} & stream.said:
            return
        stream.credit += int.from_bytes(payload, "big")
        if stream.credit > CREDIT_MAX:
            raise Failure("violation: more credit than there may be")

    def take_moved(self, stream, _payload):
        if self.role == "responder":
            if MOVED not in stream.written:
                raise Failure("violation: MOVED that nobody asked for")
            stream.heard.add(MOVED)
            self.streams.pop(stream.number)
            return
        if stream.session is None:
            raise Failure("violation: MOVED that nobody asked for")
        if stream.is_accepted is False and DONE not in stream.written:
            stream.abort(0)  # C14
            return
        stream.heard.add(MOVED)
        stream.say_moved()
        self.streams.pop(stream.number)

    # Opening, at an initiator.

    def open(self, payload, data):
        """Opens a stream, with its first DATA at once; waits until there is room for it."""
        with self.changed:
            ready = lambda: self.failed or self.gone_away is not None or len(self.streams) < self.allowed
            if not self.changed.wait_for(ready, PATIENCE):
                raise Failure("no room for another stream")
            if self.failed or self.gone_away is not None:
                return None
            self.highest += 1
            stream = self.streams[self.highest] = Stream(self, self.highest)
            self.say(stream, OPEN, payload)
            if data:
                self.say(stream, DATA, data)
                stream.credit -= len(data)
                stream.report["sent"] += len(data)
            return stream
