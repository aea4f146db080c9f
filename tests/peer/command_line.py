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

    command = commands.add_parser("responder", parents=[both])
    command.add_argument("--listen", required=True, type=host_port, metavar="HOST:PORT")
    command.add_argument("--accept", type=int, default=1, metavar="N", help="end after N connections")
    command.add_argument("--suites", type=lambda text: [int(n) for n in text.split(",")],
                         default=list(SUITES), metavar="N,…", help="the suites that are accepted")
    command.add_argument("--abort", type=int, metavar="REASON", help="answer OPEN by ABORT")

    command = commands.add_parser("vectors")
    command.add_argument("file")
    return parser


def host_port(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def record(text):
    kind, body = text.split(":")
    return int(kind), bytes.fromhex(body)


def extension(text):
    kind, value = record(text)
    return bytes([kind, len(value)]) + value


def flip_of(text):
    message, byte, bit = text.split(":")
    return message, int(byte), int(bit)
