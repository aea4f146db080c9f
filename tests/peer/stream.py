"""Records on a socket: the first record, extensions, the stream and its ends."""

import socket
import threading
import time

from keys import Failure

OPEN, OPENED, DATA, END, ABORT, PADDED, CARRY, CARRIED, FRAMES, JOIN, DONE = range(1, 12)
NOT_UNDERSTOOD, NOT_AVAILABLE = 8, 9
DATA_MAX = 16384
CLIENT_ADDRESS, NOBODY = 1, 2
# The longest ciphertext before the key is proved: a kind, extensions, the tag (rule R1).
FIRST_MAX = 1 + 255 + 16


class Aborted(Failure):
    """The other end sent ABORT, or this end has to."""

    def __init__(self, reason, by):
        super().__init__(f"abort {reason} by {by}")
        self.reason, self.by = reason, by


class Cut(Failure):
    """The connection ended, at the boundary of what was read or within it."""

    def __init__(self, text, at_boundary=False):
        super().__init__(text)
        self.at_boundary = at_boundary


def read_exact(connection, count, missing, deadline=None):
    """Raises Cut(missing) when the connection ends first, or the deadline has come."""
    data = b""
    while len(data) < count:
        try:
            if deadline is not None:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
            more = connection.recv(count - len(data))
        except OSError as error:
            raise Cut(f"{missing}: {type(error).__name__}") from None
        if not more:
            raise Cut(f"{missing}: end of file", at_boundary=not data)
        data += more
    return data


def extensions(body):
    """Rules X1 and X2: the types that this end understands, by their numbers."""
    if len(body) > 255:
        raise Failure("violation: more than 255 bytes of extensions")
    found, last, at = {}, -1, 0
    while at < len(body):
        if len(body) - at < 2 or len(body) - at - 2 < body[at + 1]:
            raise Failure("violation: an extension that is cut short")
        kind, value = body[at], body[at + 2 : at + 2 + body[at + 1]]
        if kind <= last:
            raise Failure("violation: extensions are not in ascending order")
        if kind == CLIENT_ADDRESS:
            address(value)
        elif kind == NOBODY and value:
            raise Failure("violation: nobody, with a value")
        elif kind >= 128:
            raise Aborted(NOT_UNDERSTOOD, "us")
        found[kind], last, at = value, kind, at + 2 + len(value)
    return found


def address(value):
    """Rule X3, as text."""
    family, rest = value[:1], value[1:]
    if family == b"\x00" and not rest:
        return "unix"
    of = {b"\x04": (socket.AF_INET, 4), b"\x06": (socket.AF_INET6, 16)}.get(family)
    if of is None or len(rest) != of[1] + 2:
        raise Failure("violation: an impossible client address")
    host, port = socket.inet_ntop(of[0], rest[:-2]), int.from_bytes(rest[-2:], "big")
    return f"[{host}]:{port}" if family == b"\x06" else f"{host}:{port}"


class Tunnel:
    """One connection after its handshake."""

    def __init__(self, connection, session, report, pad=0, flip=None):
        self.connection, self.session, self.report = connection, session, report
        self.pad, self.flip, self.sent_records = pad, flip, 0
        self.end_sent = self.end_received = False
        self.lock = threading.Lock()
        report.update(sent=0, received=0)

    def seal(self, kind, body=b""):
        record = self.session.sending.seal(bytes([kind]) + body)
        if self.flip:
            record = self.flip(f"r{self.sent_records}", record)
        self.sent_records += 1
        return record

    def write(self, data):
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Failure(f"cannot write: {type(error).__name__}") from None

    def seal_data(self, data):
        """DATA, or with padding PADDED whose body is a multiple of `pad`."""
        self.report["sent"] += len(data)
        if not self.pad:
            return self.seal(DATA, data)
        return self.seal(PADDED, len(data).to_bytes(2, "big") + data + bytes(-len(data) % self.pad))

    def read(self, limit=65535, missing="truncated", deadline=None):
        """The kind and body of the next record."""
        length = int.from_bytes(read_exact(self.connection, 2, missing, deadline), "big")
        if not 17 <= length <= limit:
            raise Failure("violation: an impossible length of a record")
        ciphertext = read_exact(self.connection, length, missing, deadline)
        plaintext = self.session.receiving.open(ciphertext)
        kind, body = plaintext[0], plaintext[1:]
        if kind == ABORT:
            if len(body) != 1:
                raise Failure("violation: ABORT without a reason of one byte")
            raise Aborted(body[0], "the other end")
        return kind, body

    def read_data(self, kind, body):
        """The bytes of DATA or PADDED."""
        if kind == PADDED:
            count = int.from_bytes(body[:2], "big")
            data, zeros = body[2 : 2 + count], body[2 + count :]
            if len(body) < 2 or len(data) != count or any(zeros):
                raise Failure("violation: a wrong PADDED")
        else:
            data = body
        if not data:
            raise Failure("violation: no data")
        self.report["received"] += len(data)
        return data

    def stream(self, take, ended=lambda: None):
        """Reads to the end of the connection. `take` gets the data, `ended` is called at END."""
        while True:
            kind, body = self.read()
            if self.end_received:
                if kind != DONE or body:
                    raise Failure("violation: a record after END")
                with self.lock:
                    if not self.end_sent:
                        raise Failure("violation: DONE before this side has sent END")
                return
            if kind in (DATA, PADDED):
                take(self.read_data(kind, body))
            elif kind == END and not body:
                ended()
                with self.lock:
                    self.end_received = True
                    self.send_done_when_due()
            else:
                raise Failure(f"violation: kind {kind} in the stream")

    def send_end(self):
        # Under the lock: the other end may answer with DONE at once.
        with self.lock:
            self.write(self.seal(END))
            self.end_sent = True
            self.send_done_when_due()

    def send_done_when_due(self):
        """After the second END: all that came before it is passed on."""
        if self.end_sent and self.end_received:
            self.write(self.seal(DONE))

    def cut(self):
        """Ends this direction of TCP."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            raise Failure("reset before the end") from None

    def close(self):
        """Ends both directions, so that a thread that reads here finds out."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # It has ended before.
