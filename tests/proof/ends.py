"""Both ends, as they read and write: any number of sessions, keys and suites at once.

N is the key (a name for its file), S its session's suite; any cipher is C.

A secret that an end draws is a function of the session and of all that the end knows when
it draws it. So no two sessions have the same, and who agrees on it agrees on all of that:
  x(N, S, I)             the private key of e_I, in the initiator's session I
  dk(N, S, I)            its ML-KEM key
  y(R, N, S, e_I, ek)    the private key of e_R, in the responder's session R
  coins(R, N, S, e_I, ek)  the randomness of its encapsulation
The streams' data are secrets of the same kind: from_i, from_r; and `quiet`, which an
initiator sends only where nobody stood between.
"""

import copy

import noise as wire
from noise import function, g, record

k = function("k")
SUITES = (wire.classical("C"), wire.hybrid("C"))

x, dk, y, coins = (function(name) for name in ("x", "dk", "y", "coins"))
from_i, from_r, quiet, data = (function(name) for name in ("from_i", "from_r", "quiet", "data"))
# I took message 2; I took OPENED; I took data.
accepted, opened, i_got = (function(name) for name in ("accepted", "opened", "i_got"))
# R took message 1; R took OPEN and connects to the target; R took data.
answered, connected, r_got = (function(name) for name in ("answered", "connected", "r_got"))


def no_limit(*_session):
    """Every session may go on. Queries have limits of their own."""
    return [[]]


def initiator(world, limit=no_limit):
    for suite in SUITES:
        initiator_of(world, suite, limit)


def initiator_of(world, suite, limit):
    rule, without = world.rule, world.assume.without
    n, i = "N", "I"
    e, kem = x(n, suite, i), dk(n, suite, i)
    ek = wire.ek_of(kem) if suite == wire.hybrid("C") else None

    # I1: message 1 (psk, e; hybrid: e1).
    message_1, state_1 = wire.message_1(n, suite, g(e), ek, without)
    rule([], k(g(e)), *map(k, message_1))

    # I2: message 2 (e, ee; hybrid: ekem1), with any e_R. A ciphertext was made for this ek,
    # or it was not, and decapsulation rejects it silently.
    if ek:
        made = wire.ciphertext(ek, "Z"), wire.shared(ek, "Z")
        foreign = "Z", wire.rejected(kem, "Z")
        cases = [made, foreign]
    else:
        cases = [("none", None)]
    for ct, ss in cases:
        e_r = "Y"
        message_2, state_2 = wire.message_2(
            copy.copy(state_1), e_r, wire.dh(e, e_r), ct if ek else None, ss, without
        )
        session = n, suite, i, e_r, ct
        received = [k(e_r), *map(k, message_2)]
        for limits in limit(world, *session):
            rule(received + limits, accepted(*session))

        # I3: OPEN and the first data, in one write; then what comes back.
        to_r, to_i = state_2.split()
        rule([accepted(*session)], k(record(to_r, 0, "kind_open")))
        rule([accepted(*session)], k(record(to_r, 1, data(from_i(n, suite, i)))))
        rule([accepted(*session), k(record(to_i, 0, "kind_opened"))], opened(*session))
        rule([opened(*session), k(record(to_i, 1, data("M")))], i_got(*session, "M"))

        if world.assume.file_leaks != "at once":
            continue
        # Where e_R is a responder's that had this very message 1, nobody stood between.
        honest = g(y("R", n, suite, g(e), ek or "none"))
        _, state_2 = wire.message_2(
            copy.copy(state_1), honest, wire.dh(e, honest), ct if ek else None, ss, without
        )
        to_r, _ = state_2.split()
        session = n, suite, i, honest, ct
        rule([accepted(*session)], k(record(to_r, 1, data(quiet(n, suite, i)))))


def responder(world, limit=no_limit):
    for suite in SUITES:
        responder_of(world, suite, limit)


def responder_of(world, suite, limit):
    rule, without = world.rule, world.assume.without
    n, r, e_i = "N", "R", "X"
    ek = "E" if suite == wire.hybrid("C") else None

    # R1: message 1 (psk, e; hybrid: e1): the hint, then both tags. A replay is answered,
    # too, as no promise rests on the replay set.
    message_1, state = wire.message_1(n, suite, e_i, ek, without)
    session = r, n, suite, e_i, ek or "none"
    rule([k(e_i), *map(k, message_1)], answered(*session))

    # R2: message 2 (e, ee; hybrid: ekem1).
    e = y(*session)
    ct = wire.ciphertext(ek, coins(*session)) if ek else None
    ss = wire.shared(ek, coins(*session)) if ek else None
    message_2, state = wire.message_2(state, g(e), wire.dh(e, e_i), ct, ss, without)
    rule([answered(*session)], k(g(e)), *map(k, message_2))

    # R3: OPEN. The target is opened, and only now the connection counts as authenticated.
    to_r, to_i = state.split()
    proof = [] if "OPEN" in without else [k(record(to_r, 0, "kind_open"))]
    rule([answered(*session), *proof], connected(*session))
    for limits in limit(world, *session):
        rule([connected(*session), *limits], k(record(to_i, 0, "kind_opened")))
    rule([connected(*session)], k(record(to_i, 1, data(from_r(*session)))))
    rule([connected(*session), k(record(to_r, 1, data("M")))], r_got(*session, "M"))
