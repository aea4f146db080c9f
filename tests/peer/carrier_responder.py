"""The responder of carriers: what comes goes back in upper case, in each stream."""

import hmac
import os
import threading

import frames
from carrier import PATIENCE, Carrier, join_proof
from keys import Failure, grouped
from stream import (
    CARRIED, CLIENT_ADDRESS, FRAMES, NOBODY, NOT_AVAILABLE, OPENED, Aborted, address, extensions,
)


class Carriers:
    """The living carriers of this responder, by their connection ids; `say` tells of each."""

    def __init__(self, say):
        self.say, self.lock, self.living = say, threading.Lock(), {}

    def carry(self, tunnel, body, options, report):
        """CARRY has come."""
        extensions(body)
        if options.carriers == 0:
            raise Aborted(NOT_AVAILABLE, "us")
        secret, name = os.urandom(32), tunnel.session.connection_id
        head = options.carriers.to_bytes(4, "big") + secret
        tunnel.write(tunnel.seal(CARRIED, head + b"".join(options.carried_extension)))
        servers = Servers(options)
        carrier = Carrier(tunnel, "responder", options.carriers, secret, options, servers.serve)
        for record in options.record:
            carrier.say_record(*record)
        with self.lock:
            self.living[name] = carrier
        self.say({"role": "responder", "carrying": name})
        try:
            carrier.run()
        finally:
            with self.lock:
                del self.living[name]
            servers.finish()
            report["streams"] = {stream.number: stream.report for stream in servers.streams}

    def join(self, tunnel, body, options, report):
        """JOIN has come: rules C10 and C11."""
        if len(body) != 28 or not any(body[8:12]):
            raise Failure("violation: a wrong JOIN")
        name, number, proof = grouped(body[:8]), int.from_bytes(body[8:12], "big"), body[12:]
        report["join"] = {"carrier": name, "stream": number}
        with self.lock:
            carrier = self.living.get(name)
        stream = carrier and accept(carrier, number, proof, tunnel, options)
        if not stream:
            raise Aborted(NOT_AVAILABLE, "us")
        with carrier.changed:
            ready = lambda: stream.ended is not None
            carrier.changed.wait_for(ready, 10 * PATIENCE)
        stream.check()


def accept(carrier, number, proof, tunnel, options):
    """The stream that the session goes on with, or None."""
    session = tunnel.session
    expected = join_proof(carrier.secret, session.handshake_hash, number)
    with carrier.changed:
        stream = carrier.streams.get(number)
        is_right = hmac.compare_digest(expected, proof) and session.key_id == carrier.tunnel.session.key_id
        if not is_right or options.refuse_join or stream is None or carrier.failed:
            return None
        if frames.OPENED not in stream.said or {frames.MOVED, frames.DONE} & stream.said:
            return None
        tunnel.write(tunnel.seal(OPENED))
        stream.session, stream.is_accepted = tunnel, True
        stream.say_moved()
        return stream


class Servers:
    """A thread for each stream of a carrier."""

    def __init__(self, options):
        self.options, self.streams, self.threads = options, [], []

    def serve(self, stream):
        self.streams.append(stream)
        thread = threading.Thread(target=self.guard, args=(stream, len(self.streams) == 1), daemon=True)
        self.threads.append(thread)
        thread.start()

    def finish(self):
        for thread in self.threads:
            thread.join(2 * PATIENCE)

    def guard(self, stream, is_first):
        try:
            self.answer(stream, is_first)
        except Aborted as aborted:
            if aborted.by == "us":
                stream.abort(aborted.reason)
        except (Failure, OSError) as failure:
            with stream.carrier.changed:
                stream.end(str(failure))

    def answer(self, stream, is_first):
        options, carrier = self.options, stream.carrier
        found = extensions(stream.opening)
        stream.report["extensions"] = {kind: value.hex() for kind, value in found.items()}
        if CLIENT_ADDRESS in found:
            stream.report["client"] = address(found[CLIENT_ADDRESS])
        if NOBODY in found:
            stream.report["client"] = "nobody"
        if options.abort is not None:
            raise Aborted(options.abort, "us")
        with carrier.changed:
            stream.check()
            carrier.say(stream, frames.OPENED, b"".join(options.extension))
        if is_first:
            for body in options.frames:
                carrier.say_record(FRAMES, body)
            if options.go_away is not None:
                carrier.go_away(options.go_away)
        if options.answer is None:
            stream.receive(lambda data: stream.send(data.upper()), stream.send_end)
        else:
            stream.send(options.answer)
            stream.send_end()
            stream.receive(lambda data: None, lambda: None)
