"""The initiator of a carrier: many streams, and sessions that they move to."""

import sys
import threading

import frames
from carrier import PATIENCE, Carrier, join_proof
from keys import Failure
from stream import CARRIED, CARRY, FIRST_MAX, FRAMES, JOIN, OPENED, extensions

# The longest ciphertext of CARRIED.
CARRIED_MAX = 1 + 4 + 32 + 255 + 16


def run(tunnel, options, report, connect):
    """Deals standard input to the streams; what they bring back goes to standard output."""
    first = options.first or (CARRY, b"")
    tunnel.write(tunnel.seal(*first))
    allowed, secret = take_carried(tunnel)
    report["allowed"] = allowed
    for record in options.record:
        tunnel.write(tunnel.seal(*record))
    carrier = Carrier(tunnel, "initiator", allowed, secret, options)
    clients = Clients(carrier, options, connect)
    starting = threading.Thread(target=clients.start, args=(sys.stdin.buffer.read(),), daemon=True)
    starting.start()
    try:
        carrier.run()
    finally:
        starting.join(PATIENCE)
        clients.finish()
        report["streams"] = {client.number: client.report for client in clients.all}
        report["go_away"] = carrier.gone_away
    sys.stdout.buffer.write(b"".join(client.output for client in clients.all))
    sys.stdout.buffer.flush()


def take_carried(tunnel):
    kind, body = tunnel.read(CARRIED_MAX, "no first record")
    if kind != CARRIED or len(body) < 36 or not any(body[:4]):
        raise Failure(f"violation: kind {kind} in place of CARRIED")
    extensions(body[36:])
    return int.from_bytes(body[:4], "big"), body[4:36]


class Clients:
    """All streams of the carrier, each with its part of the input."""

    def __init__(self, carrier, options, connect):
        self.carrier, self.options, self.connect = carrier, options, connect
        self.all = []

    def start(self, data):
        count = self.options.carrier
        part = -(-len(data) // count)
        aborted_from = count - self.options.aborts
        for at in range(count):
            moves = self.options.move[0] if self.options.move and at < self.options.move[1] else None
            client = Client(self, data[at * part : (at + 1) * part], moves, at >= aborted_from)
            if not client.open():
                break
            self.all.append(client)
            if at == 0 and self.options.frames:
                client.wait_until_open()
                for body in self.options.frames:
                    self.carrier.say_record(FRAMES, body)
        if self.options.without_end:
            self.carrier.tunnel.cut()
        self.finish()
        self.carrier.close()

    def finish(self):
        for client in self.all:
            client.join()


class Client:
    """One stream: a thread sends, another one takes."""

    def __init__(self, clients, data, moves, aborts):
        self.options, self.connect = clients.options, clients.connect
        self.carrier, self.data, self.moves, self.aborts = clients.carrier, data, moves, aborts
        self.output = b""
        self.threads = []

    def open(self):
        first = b"" if self.options.wait else self.data[:1000]
        self.stream = self.carrier.open(b"".join(self.options.extension), first)
        if self.stream is None:
            return False
        self.number, self.report, self.data = self.stream.number, self.stream.report, self.data[len(first) :]
        self.stream.withholds_credit = self.moves == "end"
        for work in (self.send, self.take):
            self.threads.append(threading.Thread(target=self.guard, args=(work,), daemon=True))
            self.threads[-1].start()
        return True

    def join(self):
        for thread in self.threads:
            thread.join(2 * PATIENCE)

    def guard(self, work):
        """A stream that fails is told in the report."""
        try:
            work()
        except (Failure, OSError) as failure:
            with self.carrier.changed:
                self.stream.end(str(failure))

    def wait_until_open(self):
        with self.carrier.changed:
            self.stream.wait_for(lambda: frames.OPENED in self.stream.heard, "OPENED")

    def take(self):
        def take(data):
            self.output += data

        self.stream.receive(take, lambda: None)

    def send(self):
        if self.moves == "start":
            self.move()
        half = len(self.data) // 2
        if self.moves != "answered":
            self.stream.send(self.data[:half])
            self.data = self.data[half:]
        if self.aborts:
            self.wait_until_open()
            self.stream.abort(5)
            return
        if self.moves == "middle":
            self.move()
        if self.moves == "answered":
            with self.carrier.changed:
                self.stream.wait_for(lambda: frames.END in self.stream.heard, "END")
            self.move()
        self.stream.send(self.data)
        if self.moves == "middle":
            self.wait_for_answer()
        self.stream.send_end()
        if self.moves == "end":
            self.move()

    def wait_for_answer(self):
        stream = self.stream
        with self.carrier.changed:
            stream.wait_for(lambda: stream.is_accepted is not None, "an answer to JOIN")

    # Moving (C9 to C14).

    def move(self):
        self.wait_until_open()
        report = {}
        tunnel = self.connect(report, self.options.join_key)
        with self.carrier.changed:
            self.stream.check()
            self.stream.session = tunnel
            self.report["session"] = report
            if self.options.join_fault == "lost":
                self.stream.join_lost()
        tunnel.write(tunnel.seal(JOIN, self.join_body(tunnel.session.handshake_hash)))
        if self.options.join_fault == "lost":
            # MOVED comes all the same (C14).
            tunnel.close()
            with self.carrier.changed:
                self.stream.wait_for(lambda: False, "MOVED")
        answer = threading.Thread(target=self.take_answer, args=(tunnel, report), daemon=True)
        answer.start()
        self.threads.append(answer)
        if self.moves != "middle":
            self.wait_for_answer()

    def join_body(self, handshake_hash):
        fault, number = self.options.join_fault, self.number
        proof = join_proof(self.carrier.secret, handshake_hash, number)
        name = bytes.fromhex(self.carrier.tunnel.session.connection_id.replace("-", ""))
        altered = lambda value: bytes([value[0] ^ 1]) + value[1:]
        if fault == "proof":
            proof = altered(proof)
        elif fault == "carrier":
            name = altered(name)
        elif fault == "stream":
            number += 1000
        return name + number.to_bytes(4, "big") + proof

    def take_answer(self, tunnel, report):
        """The first record of the session, and no more (C13)."""
        try:
            kind, body = tunnel.read(FIRST_MAX, "no first record")
            if kind != OPENED or body:
                raise Failure(f"violation: kind {kind} in place of OPENED")
            with self.carrier.changed:
                self.stream.is_accepted = True
                self.carrier.changed.notify_all()
        except (Failure, OSError) as failure:
            report["end"] = str(failure)
            self.stream.join_lost()
            tunnel.close()
