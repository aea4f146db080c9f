"""Compares this implementation with every value of a file of vectors."""

import json

import frames
import stream
from carrier import join_proof
from keys import Key
from noise import SUITES, Initiator, Responder


class Difference(Exception):
    """The first value that differs."""


def check(path):
    """Returns the number of values that were compared."""
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    if isinstance(vectors, dict):
        return check_carrier(vectors)
    if [vector["suite"] for vector in vectors] != list(SUITES):
        raise Difference("the vectors are not those of all suites in their order")
    return sum(check_one(vector) for vector in vectors)


def check_one(vector):
    compared = 0

    def same(name, ours):
        nonlocal compared
        expected = vector
        for step in name.split("."):
            expected = expected[int(step) if step.isdigit() else step]
        ours = ours.hex() if isinstance(ours, bytes) else ours
        if ours != expected:
            raise Difference(f"suite {suite}, {name}: {ours}, not {expected}")
        compared += 1

    suite, given = vector["suite"], lambda name: bytes.fromhex(vector[name])
    key = Key(given("key_file"))
    same("protocol_name", SUITES[suite])
    same("psk", key.psk)
    same("key_id", key.id)
    same("hint_key", key.hint_key)

    private, every = given("initiator_x25519_private"), vector["rekey_every"]
    initiator = Initiator(suite, key, private=private, d_z=given("ml_kem_768_d_z"))
    same("hint", initiator.hint)
    same("prologue", initiator.prologue)
    same("message_1", initiator.message_1)
    # The responder is fed with the file's bytes, the initiator with the responder's.
    responder = Responder([Key(bytes(32)), key], given("message_1"))
    private, m = given("responder_x25519_private"), given("ml_kem_768_m")
    message_2, answered = responder.answer(private=private, m=m, rekey_every=every)
    same("message_2", message_2)
    sessions = {"initiator": initiator.finish(message_2, every), "responder": answered}
    for session in sessions.values():
        same("handshake_hash", session.handshake_hash)
        same("connection_id", session.connection_id)

    if len(vector["records"]) <= 2 * every:
        raise Difference(f"suite {suite}, records: too few for a rekey")
    for i, record in enumerate(vector["records"]):
        sender = record["from"]
        receiver = "responder" if sender == "initiator" else "initiator"
        plaintext = bytes.fromhex(record["plaintext"])
        same(f"records.{i}.record", sessions[sender].sending.seal(plaintext))
        opened = sessions[receiver].receiving.open(bytes.fromhex(record["record"])[2:])
        same(f"records.{i}.plaintext", opened)
    return compared


def check_carrier(vectors):
    """The records of a carrier, and what its frames say."""
    given, compared = lambda name: bytes.fromhex(vectors[name].replace("-", "")), 0

    def same(name, expected, ours):
        nonlocal compared
        if expected != ours:
            raise Difference(f"{name}: {ours}, not {expected}")
        compared += 1

    number = vectors["stream"]
    proof = join_proof(given("secret"), given("handshake_hash"), number)
    same("proof", vectors["proof"], proof.hex())
    for i, record in enumerate(vectors["records"]):
        name = record["name"]
        told = [(of["type"], of.get("stream"), of["payload"]) for of in record.get("frames", [])]
        body = {
            "CARRY": lambda: b"",
            "CARRIED": lambda: (1024).to_bytes(4, "big") + given("secret"),
            "JOIN": lambda: given("connection_id") + number.to_bytes(4, "big") + proof,
            "FRAMES": lambda: b"".join(frame_of(*of) for of in told),
        }[name]()
        plaintext = bytes([getattr(stream, name)]) + body
        same(f"records.{i}.plaintext", record["plaintext"], plaintext.hex())
        if name == "FRAMES":
            found = [(*of[:2], of[2].hex()) for of in frames.decode(body)]
            expected = [(getattr(frames, kind), *rest) for kind, *rest in told if kind != "PAD"]
            same(f"records.{i}.frames", expected, found)
    return compared


def frame_of(kind, number, payload):
    payload = bytes.fromhex(payload)
    return payload if kind == "PAD" else frames.encode(getattr(frames, kind), number, payload)
