"""What is asked, and what must come out.

A query names facts that would be an attack. It is true where they never hold together in
any run, and false where the prover finds a run. Controls must be false: they show that the
model has sessions, and that it can fail.
"""

from dataclasses import dataclass
from typing import Callable

import ends
from attacker import attacker
from ends import accepted, answered, connected, coins, dk, from_i, from_r, g, i_got, opened
from ends import quiet, r_got, x, y
from noise import ciphertext, derived, ek_of, file_of, siphash
from world import Assumptions, World

NOTHING = Assumptions()
BROKEN = Assumptions(x25519_broken=True, mlkem_broken=True)
LATER = Assumptions(file_leaks="later")
THIEF = Assumptions(file_leaks="at once")


@dataclass(frozen=True)
class Query:
    name: str
    expected: bool
    assume: Assumptions
    attacks: Callable
    limit_i: Callable = ends.no_limit
    limit_r: Callable = ends.no_limit

    def problem(self):
        world = World(self.assume)
        attacker(world)
        ends.initiator(world, self.limit_i)
        ends.responder(world, self.limit_r)
        self.attacks(world)
        return world.text()


class Handshake:
    """One handshake's terms. What holds for one cipher holds for the other."""

    def __init__(self, kex, other_kex):
        self.hybrid = kex == "hybrid"
        self.kex, self.suite = kex, f"{kex}(chachapoly)"
        self.other_suites = f"{other_kex}(chachapoly)", f"{kex}(aesgcm)"
        # Session i0 of I, its message 1; session r0 of R, which took that; its message 2.
        # Session names mean nothing, so what holds for these holds for all.
        self.i0 = "ours", self.suite, "i0"
        self.e_i, self.ek = g(x(*self.i0)), ek_of(dk(*self.i0)) if self.hybrid else "none"
        self.r0 = "r0", "ours", self.suite, self.e_i, self.ek
        self.e_r = g(y(*self.r0))
        self.ct = ciphertext(self.ek, coins(*self.r0)) if self.hybrid else "none"


def queries(kex):
    handshake = Handshake(*(("hybrid", "classical") if kex == "hybrid" else ("classical", "hybrid")))
    return [*sessions(handshake), *secrecy(handshake), *agreement(handshake), *stranger(handshake)]


def query(name, expected, *facts, assume=NOTHING, **limits):
    return Query(name, expected, assume, lambda world: world.attack(*facts), **limits)


def sessions(hs):
    """Honest runs are there: each of these can be reached."""
    yield query("control: R never connects", False, connected(*hs.r0))
    yield query("control: I never gets OPENED", False, opened(*hs.i0, hs.e_r, hs.ct))
    yield query("control: R never gets I's data", False, r_got(*hs.r0, from_i(*hs.i0)))
    yield query(
        "control: I never gets R's data", False, i_got(*hs.i0, hs.e_r, hs.ct, from_r(*hs.r0))
    )
    twice = answered(*hs.r0), answered("r1", *hs.r0[1:])
    yield query("control: message 1 cannot be replayed for an answer", False, *twice)


def secrecy(hs):
    data = {"I": from_i("ours", hs.suite, "I"), "R": from_r("R", "ours", hs.suite, "X", "E")}
    x25519 = Assumptions(x25519_broken=True, file_leaks="later")
    mlkem = Assumptions(mlkem_broken=True, file_leaks="later")
    both = Assumptions(x25519_broken=True, mlkem_broken=True, file_leaks="later")
    for end, secret in data.items():
        now, later = f"k({secret})", f"l({secret})"
        whose = f"{end}'s data stay secret"
        yield query(whose, True, now)
        yield query(f"{whose}: X25519 and ML-KEM broken", True, now, assume=BROKEN)
        yield query(f"{whose}: key file leaks later", True, later, assume=LATER)
        if hs.hybrid:
            yield query(f"{whose}: … and ML-KEM broken", True, later, assume=mlkem)
            yield query(f"{whose}: … and X25519 broken", True, later, assume=x25519)
        else:
            # This is what the hybrid handshake is for.
            yield query(f"control: {whose}: … and X25519 broken", False, later, assume=x25519)
        yield query(f"control: {whose}: thief in the middle", False, now, assume=THIEF)

    later = f"l({data['I']})"
    if hs.hybrid:
        yield query("control: key file leaks later, both broken", False, later, assume=both)
        without = Assumptions(x25519_broken=True, file_leaks="later", without=("ekem1",))
        yield query("control: key file leaks later, X25519 broken, no MixKey(ss)", False, later, assume=without)
    else:
        without = Assumptions(file_leaks="later", without=("ee",))
        yield query("control: key file leaks later, no ee", False, later, assume=without)
    stolen = f"k({from_i('stolen', hs.suite, 'I')})"
    yield query("control: data under another's key are secret from it", False, stolen)
    secret = f"k({quiet('ours', hs.suite, 'I')})"
    yield query("a thief reads no session that it stood not in", True, secret, assume=THIEF)


def agreement(hs):
    """Each end is sure of the other: same key, suite, hint, e_I, ek, e_R, ct, so same hash.

    The secrets that an end draws tell which session drew them, so each session of one end
    agrees with one of the other, and no two with the same (injective agreement).
    """
    for assume, when in ((NOTHING, ""), (BROKEN, ": X25519 and ML-KEM broken")):
        for event, what in ((answered, "answers"), (connected, "connects")):
            name = f"R {what} only to an I: key, suite, hint, e_I, ek{when}"
            yield Query(name, True, assume, responder_disagrees(hs, event))
        name = f"R connects only if I took this message 2, live{when}"
        yield query(name, True, connected(*hs.r0), assume=assume, limit_i=but_for_i0(hs))
        name = f"I takes message 2 only from an R: the same, e_R, ct{when}"
        yield Query(name, True, assume, initiator_disagrees(hs))
        name = f"I gets OPENED only if R connected in this session{when}"
        fact = opened(*hs.i0, hs.e_r, "Z")
        yield query(name, True, fact, assume=assume, limit_r=but_for_r0(hs))
        yield Query(f"R's stream is what I sent in it{when}", True, assume, stream_of_r(hs))
        yield Query(f"I's stream is what R sent in it{when}", True, assume, stream_of_i(hs))

    no_open = Assumptions(without=("OPEN",))
    name = "control: R connects at message 1, only if I is live"
    yield query(name, False, connected(*hs.r0), assume=no_open, limit_i=but_for_i0(hs))
    name = "control: R connects only to an I, not to a thief"
    yield Query(name, False, THIEF, responder_disagrees(hs, connected))
    name = "control: I takes message 2 only from an R, not from a thief"
    yield Query(name, False, THIEF, initiator_disagrees(hs))

    yield Query("neither end is moved to another suite", True, NOTHING, downgrade(hs))
    name = "control: neither end is, with the suite left out"
    yield Query(name, False, Assumptions(without=("suite",)), downgrade(hs))
    other_key = connected("R", "stolen", hs.suite, g(x("ours", hs.suite, "I")), "E")
    yield query("no session is of two keys: R has a thief's", True, other_key)
    other_key = accepted("stolen", hs.suite, "I", g(y("R", "ours", hs.suite, "X", "E")), "Z")
    yield query("no session is of two keys: I has a thief's", True, other_key)


def stranger(hs):
    def makes_a_hint(world):
        made = siphash(derived("hint", file_of("ours")), hs.suite, "X")
        world.attack(f"k({made})", world.unlike("g(x(ours,_,_))", "X"))

    yield Query("a stranger makes no hint, all broken", True, BROKEN, makes_a_hint)
    yield Query("control: nor does a thief", False, THIEF, makes_a_hint)
    yield query("nothing tells the key file, all broken", True, "k(file(ours))", assume=BROKEN)


def responder_disagrees(hs, event):
    """R took something else than an initiator of this key and suite sent."""

    def attacks(world):
        somebody = world.unlike(g(x("ours", hs.suite, "_")), "X")
        world.attack(event("R", "ours", hs.suite, "X", "E"), somebody)
        if hs.hybrid:
            # The message is i0's, but not ek.
            world.attack(event("R", "ours", hs.suite, hs.e_i, "E"), world.unlike(hs.ek, "E"))

    return attacks


def initiator_disagrees(hs):
    """I took a message 2 which no R made for this very message 1; or another ciphertext."""

    def attacks(world):
        theirs = world.unlike(g(y("_", *hs.r0[1:])), "Y")
        world.attack(accepted(*hs.i0, "Y", "Z"), theirs)
        if hs.hybrid:
            world.attack(accepted(*hs.i0, hs.e_r, "Z"), world.unlike(hs.ct, "Z"))

    return attacks


def but_for_i0(hs):
    """All initiators take part, but i0 never takes r0's message 2."""
    return but_for((*hs.i0, hs.e_r, hs.ct))


def but_for_r0(hs):
    """All responders take part, but r0 never sends OPENED."""
    return but_for(hs.r0)


def but_for(excepted):
    def limits(world, *session):
        pairs = zip(excepted, session, strict=True)
        return [[world.unlike(pattern, term)] for pattern, term in pairs if pattern != term]

    return limits


def stream_of_r(hs):
    other = from_i(*hs.i0)
    return lambda world: world.attack(
        r_got("R", "ours", hs.suite, hs.e_i, "E", "M"), world.unlike(other, "M")
    )


def stream_of_i(hs):
    other = from_r(*hs.r0)
    return lambda world: world.attack(
        i_got(*hs.i0, hs.e_r, "Z", "M"), world.unlike(other, "M")
    )


def downgrade(hs):
    """One end has this suite, and the other end of its session has another."""

    def attacks(world):
        for other in hs.other_suites:
            world.attack(connected("R", "ours", other, g(x("ours", hs.suite, "I")), "E"))
            world.attack(accepted("ours", hs.suite, "I", g(y("R", "ours", other, "X", "E")), "Z"))

    return attacks
