"""An independent end of a spiped pipe, for tests of the program. README.md describes it.

    peer.py initiator --key FILE --connect HOST:PORT [--suite N] <input >output
    peer.py responder --key FILE --listen HOST:PORT [--accept N]
    peer.py vectors FILE…

Both ends print a line of JSON on standard error for each connection.
"""

import argparse
import json
import os
import select
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

# The packages that scripts/peer installs; nothing is written beside the sources.
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "target" / "peer"))
sys.dont_write_bytecode = True

import carrier_initiator
import noise
import vectors
from carrier_responder import Carriers
from command_line import command_line
from keys import Failure, Key
from noise import Faults, Initiator, Responder
from stream import (
    ABORT, CARRIED, CARRY, CLIENT_ADDRESS, DATA, DATA_MAX, DONE, END, FIRST_MAX, FRAMES, JOIN,
    NOBODY, NOT_UNDERSTOOD, OPEN, OPENED, PADDED, Aborted, Tunnel, address, extensions, read_exact,
)

PATIENCE = 20


def main():
    options = command_line().parse_args()
    commands = {"initiator": initiator, "responder": responder, "vectors": check_vectors}
    try:
        return commands[options.command](options)
    except (Failure, vectors.Difference, OSError) as error:
        print(f"peer.py: {error}", file=sys.stderr)
        return 1


# The initiator


def initiator(options):
    report = {"role": "initiator", "suite": options.suite}
    try:
        tunnel = connect(options, report)
        if options.prepare:
            tunnel.write(tunnel.seal(PADDED, bytes(2)))
        if options.carrier:
            carry(tunnel, options, report)
        else:
            initiate(tunnel, options, report)
        report["end"] = "clean"
    except (Failure, OSError) as failure:
        fail(report, failure)
    say(report)
    return 0 if report["end"] == "clean" else 1


def connect(options, report, key=None):
    """One connection, up to its handshake."""
    connection = socket.create_connection(options.connect, PATIENCE)
    key = read_key(key or options.key[0])
    handshake = Initiator(options.suite, key, faults(options))
    report.update(key_id=key.id, hint=handshake.hint.hex())
    message_1 = flipped(options)("1", handshake.message_1)
    report["message_1"] = message_1.hex()
    connection.sendall(message_1)
    length = noise.length_of_message_2(options.suite)
    message_2 = read_exact(connection, length, "no message 2")
    session = handshake.finish(message_2, options.rekey_every)
    report.update(connection_id=session.connection_id, handshake_hash=session.handshake_hash.hex())
    return Tunnel(connection, session, report, options.pad, flipped(options))


def carry(tunnel, options, report):
    """A carrier; sessions with JOIN are made in the same way, without what is hostile."""
    calm = argparse.Namespace(**{**vars(options), "flip": None})
    with refusals_sent(tunnel):
        carrier_initiator.run(tunnel, options, report, lambda *of_join: connect(calm, *of_join))


def initiate(tunnel, options, report):
    """A session: standard input goes out, what comes goes to standard output."""
    kind, body = options.first or (OPEN, b"".join(options.extension))
    first = tunnel.seal(kind, body)
    # In one write with the first data where there is some; at once where there is none.
    if not options.wait and select.select([0], [], [], 0)[0] and (data := os.read(0, DATA_MAX)):
        first += tunnel.seal_data(data)
    tunnel.write(first)
    if not options.wait:
        start_sending(tunnel, options)
    with refusals_sent(tunnel):
        take_opened(tunnel, report)
    if options.wait:
        start_sending(tunnel, options)
    tunnel.stream(write_output)


def start_sending(tunnel, options):
    """Sends the further records at once, and standard input beside the reader."""
    for record in options.record:
        tunnel.write(tunnel.seal(*record))
    threading.Thread(target=send_input, args=(tunnel, options), daemon=True).start()


def take_opened(tunnel, report):
    kind, body = tunnel.read(missing="no first record")
    if kind != OPENED:
        raise Failure(f"violation: kind {kind} in place of OPENED")
    report["opened"] = {kind: value.hex() for kind, value in extensions(body).items()}


def send_input(tunnel, options):
    """Runs beside the reader, which reports what fails."""
    try:
        while data := os.read(0, DATA_MAX):
            tunnel.write(tunnel.seal_data(data))
        if options.without_end:
            tunnel.cut()
        else:
            tunnel.send_end()
    except (Failure, OSError) as failure:
        tunnel.report["writer"] = str(failure)


def write_output(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


# The responder


def responder(options):
    keys = [read_key(path) for path in options.key]
    replay_set, carriers, ends = set(), Carriers(say), []
    listener = socket.create_server(options.listen)
    host, port = listener.getsockname()[:2]
    say({"listening": f"{host}:{port}"})

    def serve(connection):
        report = {"role": "responder"}
        connection.settimeout(PATIENCE)
        with connection:
            try:
                respond(connection, options, keys, replay_set, carriers, report)
                report["end"] = "clean"
            except (Failure, OSError) as failure:
                fail(report, failure)
        say(report)
        ends.append(report["end"])

    threads = []
    for _ in range(options.accept):
        connection, _ = listener.accept()
        threads.append(threading.Thread(target=serve, args=(connection,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return 0 if ends == ["clean"] * options.accept else 1


def respond(connection, options, keys, replay_set, carriers, report):
    """One connection: what comes goes back in upper case."""
    suite = read_exact(connection, 1, "no message 1")
    report["suite"] = suite[0]
    if suite[0] not in options.suites:
        raise Failure("a suite that is not accepted")
    rest = read_exact(connection, noise.length_of_message_1(suite[0]) - 1, "no message 1")
    message_1 = suite + rest
    name = message_1[1:9], message_1[-16:]
    if name in replay_set:
        raise Failure("a replay")
    handshake = Responder(keys, message_1)
    replay_set.add(name)
    report.update(key_id=handshake.key.id, hint=handshake.hint.hex())
    message_2, session = handshake.answer(faults(options), rekey_every=options.rekey_every)
    connection.sendall(flipped(options)("2", message_2))
    report.update(connection_id=session.connection_id, handshake_hash=session.handshake_hash.hex())

    tunnel = Tunnel(connection, session, report, options.pad, flipped(options))
    with refusals_sent(tunnel):
        kind, body = take_first(tunnel, report)
        if kind == CARRY:
            return carriers.carry(tunnel, body, options, report)
        if kind == JOIN:
            return carriers.join(tunnel, body, options, report)
        take_open(body, options, report)
    tunnel.write(tunnel.seal(OPENED, b"".join(options.extension)))
    for record in options.record:
        tunnel.write(tunnel.seal(*record))
    ended = tunnel.cut if options.without_end else tunnel.send_end
    tunnel.stream(lambda data: tunnel.write(tunnel.seal_data(data.upper())), ended)


def take_first(tunnel, report):
    """Rules R1 and R2. The time that a prepared session waits has no limit but PATIENCE."""
    kind, body = tunnel.read(FIRST_MAX, "no first record")
    report["prepared"] = prepared = kind == PADDED and body == bytes(2)
    if prepared:
        kind, body = tunnel.read(FIRST_MAX, "no record after the empty PADDED")
    report["first"] = {"kind": kind, "body": body.hex()}
    if kind in (OPENED, DATA, END, PADDED, CARRIED, FRAMES, DONE):
        raise Failure(f"violation: kind {kind} in place of OPEN")
    if kind not in (OPEN, CARRY, JOIN):
        # A later version's.
        raise Aborted(NOT_UNDERSTOOD, "us")
    return kind, body


def take_open(body, options, report):
    found = extensions(body)
    report["extensions"] = {kind: value.hex() for kind, value in found.items()}
    if CLIENT_ADDRESS in found:
        report["client"] = address(found[CLIENT_ADDRESS])
    if NOBODY in found:
        report["client"] = "nobody"
    if options.abort is not None:
        raise Aborted(options.abort, "us")


# Both


@contextmanager
def refusals_sent(tunnel):
    """Sends the ABORT that this end has to send."""
    try:
        yield
    except Aborted as aborted:
        if aborted.by == "us":
            tunnel.write(tunnel.seal(ABORT, bytes([aborted.reason])))
        raise


def check_vectors(options):
    print(f"{sum(vectors.check(file) for file in options.file)} values agree")
    return 0


def read_key(path):
    with open(path, "rb") as file:
        return Key(file.read())


def faults(options):
    return Faults(options.wrong_hint, options.low_order, options.bad_ek, options.bad_ct)


def flipped(options):
    """Alters one bit of one message or record, which `--flip` names."""

    def flip(name, message):
        if options.flip is None or options.flip[0] != name:
            return message
        _, byte, bit = options.flip
        message = bytearray(message)
        message[byte] ^= 1 << bit
        return bytes(message)

    return flip


def fail(report, failure):
    report["end"] = str(failure)
    if isinstance(failure, Aborted):
        report["abort"] = failure.reason


def say(report):
    sys.stderr.write(json.dumps(report) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
