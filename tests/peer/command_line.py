"""The command line of the peer."""

import argparse

from noise import REKEY_EVERY, SUITES


def command_line():
    parser = argparse.ArgumentParser(description="An independent end of a spiped pipe, for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--key", required=True, action="append", metavar="FILE")
    both.add_argument("--extension", default=[], action="append", type=extension, metavar="TYPE:HEX",
                      help="an extension of OPEN or OPENED, in the order given")
    both.add_argument("--record", default=[], action="append", type=record, metavar="KIND:HEX",
                      help="a further record after OPEN or OPENED")
    both.add_argument("--pad", type=int, default=0, metavar="N", help="send PADDED in place of DATA")
    both.add_argument("--rekey-every", type=int, default=REKEY_EVERY, metavar="N")
    both.add_argument("--without-end", action="store_true", help="end TCP without END")
    both.add_argument("--frames", default=[], action="append", type=bytes.fromhex, metavar="HEX",
                      help="frames that a carrier says once its first stream is open")
    both.add_argument("--ignore-credit", action="store_true", help="send DATA without credit")
    both.add_argument("--silent", action="store_true", help="give no sign of life")
    both.add_argument("--flip", type=flip_of, metavar="MESSAGE:BYTE:BIT",
                      help="alter message 1 or 2, or record r0, r1, …")
    for fault in ("wrong-hint", "low-order", "bad-ek", "bad-ct"):
        both.add_argument(f"--{fault}", action="store_true")

    command = commands.add_parser("initiator", parents=[both])
    command.add_argument("--connect", required=True, type=host_port, metavar="HOST:PORT")
    command.add_argument("--suite", type=int, choices=SUITES, default=5)
    command.add_argument("--prepare", action="store_true", help="send an empty PADDED before OPEN")
    command.add_argument("--wait", action="store_true", help="send nothing more before OPENED")
    command.add_argument("--first", type=record, metavar="KIND:HEX", help="a record in place of OPEN")

    command.add_argument("--carrier", type=int, metavar="N",
                         help="open a carrier, and deal the input to N streams")
    command.add_argument("--move", type=move, metavar="WHEN:N",
                         help="move the first N streams: start, middle, end (END is said) or "
                         "answered (END has come)")
    command.add_argument("--aborts", type=int, default=0, metavar="N",
                         help="the last N streams send ABORT after half of their input")
    command.add_argument("--join-fault", choices=("proof", "carrier", "stream", "lost"))
    command.add_argument("--join-key", metavar="FILE", help="the key of sessions with JOIN")

    command = commands.add_parser("responder", parents=[both])
    command.add_argument("--carriers", type=int, default=1024, metavar="N",
                         help="the streams of a carrier that may live at once; 0: no carriers")
    command.add_argument("--carried-extension", default=[], action="append", type=extension,
                         metavar="TYPE:HEX", help="an extension of CARRIED")
    command.add_argument("--refuse-join", action="store_true", help="answer JOIN by ABORT 9")
    command.add_argument("--go-away", type=int, metavar="REASON",
                         help="send GOAWAY once a stream is open")
    command.add_argument("--answer", type=bytes.fromhex, metavar="HEX",
                         help="in each stream of a carrier, send this and END at once")
    command.add_argument("--listen", required=True, type=host_port, metavar="HOST:PORT")
    command.add_argument("--accept", type=int, default=1, metavar="N", help="end after N connections")
    command.add_argument("--suites", type=lambda text: [int(n) for n in text.split(",")],
                         default=list(SUITES), metavar="N,…", help="the suites that are accepted")
    command.add_argument("--abort", type=int, metavar="REASON", help="answer OPEN by ABORT")

    command = commands.add_parser("vectors")
    command.add_argument("file", nargs="+")
    return parser


def host_port(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def record(text):
    kind, body = text.split(":")
    return int(kind), bytes.fromhex(body)


def move(text):
    when, count = text.split(":")
    if when not in ("start", "middle", "end", "answered"):
        raise ValueError(when)
    return when, int(count)


def extension(text):
    kind, value = record(text)
    return bytes([kind, len(value)]) + value


def flip_of(text):
    message, byte, bit = text.split(":")
    return message, int(byte), int(bit)
