"""What the attacker can do: it is the network (Dolev and Yao)."""

from noise import function
from world import CONSTANTS, PUBLIC


def attacker(world):
    assume = world.assume
    # Diffie-Hellman.
    world.clauses.append("dh(A,g(B)) = dh(B,g(A))")
    knows(world, function("k"))
    if assume.file_leaks == "later":
        # All that it has recorded, and all key files.
        world.rule(["k(T)"], "l(T)")
        world.rule([], "l(file(N))")
        knows(world, function("l"))
    if assume.file_leaks == "at once":
        world.rule([], "k(file(N))")


def knows(world, k):
    rule = world.rule
    # It computes every function,
    for constant in CONSTANTS:
        rule([], k(constant))
    for name, count in PUBLIC.items():
        variables = [f"V{i}" for i in range(count)]
        rule([k(v) for v in variables], k(function(name)(*variables)))
    # opens a ciphertext whose key it has (without it, it learns nothing of it),
    rule([k("aead(K,N,A,P)"), k("K")], k("P"))
    rule([k("data(M)")], k("M"))
    # decapsulates with the key,
    rule([k("ct(ek(D),Z)"), k("D")], k("ss(ek(D),Z)"))
    # and has a key file of its own: it is a client as any.
    rule([], k("file(stolen)"))
    if world.assume.x25519_broken:
        # Every private key.
        rule([k("g(A)")], k("A"))
    if world.assume.mlkem_broken:
        # Every decapsulation key, and what was encapsulated with which coins.
        rule([k("ek(D)")], k("D"))
        rule([k("ct(E,Z)")], k("Z"), k("ss(E,Z)"))
