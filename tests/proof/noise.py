"""The wire: both messages and the keys of the records, as Noise makes them.

Everything here is a term of first-order logic, written as text. A name in capitals is a
variable. `hkdf1`, `hkdf2` and `hkdf3` are HKDF's outputs; `aead(k, n, ad, p)` is a
ciphertext with its tag; nothing is known of a function but what attacker.py says.
"""

EMPTY = "empty"


def function(name):
    return lambda *arguments: f"{name}({','.join(arguments)})"


aead, hash_, dh, g = function("aead"), function("hash"), function("dh"), function("g")
hkdf1, hkdf2, hkdf3 = function("hkdf1"), function("hkdf2"), function("hkdf3")
# ML-KEM: ek of dk; ciphertext and shared secret of an encapsulation with these coins; what
# decapsulation makes of a ciphertext that was not made for dk (implicit rejection).
ek_of, ciphertext, shared, rejected = (function(n) for n in ("ek", "ct", "ss", "reject"))
file_of, derived, siphash = function("file"), function("derived"), function("siphash")
classical, hybrid = function("classical"), function("hybrid")


def nonce(number):
    return f"n{number}"


def psk(key):
    return derived("psk", file_of(key))


def hint(key, suite, e):
    return siphash(derived("hint", file_of(key)), suite, e)


class SymmetricState:
    """Noise, section 5.2, and the cipher state in it."""

    def __init__(self, protocol_name):
        self.ck = self.h = protocol_name
        self.k, self.n = None, 0

    def mix_hash(self, data):
        self.h = hash_(self.h, data)

    def mix_key(self, ikm):
        self.ck, self.k, self.n = hkdf1(self.ck, ikm), hkdf2(self.ck, ikm), 0

    def mix_key_and_hash(self, ikm):
        self.mix_hash(hkdf2(self.ck, ikm))
        self.ck, self.k, self.n = hkdf1(self.ck, ikm), hkdf3(self.ck, ikm), 0

    def encrypt_and_hash(self, plaintext):
        sealed = aead(self.k, nonce(self.n), self.h, plaintext)
        self.mix_hash(sealed)
        self.n += 1
        return sealed

    def split(self):
        return hkdf1(self.ck, EMPTY), hkdf2(self.ck, EMPTY)


def message_1(key, suite, e, ek, without=()):
    """What is on the wire besides the suite and e_I, and the state after it.

    `ek` is None in the classical handshake. `without` names what a negative control leaves
    out; the real handshake has all of it.
    """
    said = "any" if "suite" in without else suite
    noise = SymmetricState(function("name")(said))
    noise.mix_hash(function("prologue")(said, hint(key, said, e)))
    noise.mix_key_and_hash(psk(key))  # psk
    noise.mix_hash(e)  # e; with a psk, MixKey(e) comes after it
    noise.mix_key(e)
    wire = [hint(key, said, e)]
    if ek:
        wire.append(noise.encrypt_and_hash(ek))  # e1, nonce 0
    wire.append(noise.encrypt_and_hash(EMPTY))  # the payload's tag, nonce 0 or 1
    return wire, noise


def message_2(noise, e, ee, ct, ss, without=()):
    """What is on the wire besides e_R, and the state after it. It goes on from message 1."""
    noise.mix_hash(e)  # e
    noise.mix_key(e)
    noise.mix_key(EMPTY if "ee" in without else ee)  # ee
    wire = []
    if ct:
        wire.append(noise.encrypt_and_hash(ct))  # ekem1: ct under the key after ee,
        if "ekem1" not in without:
            noise.mix_key(ss)  # then MixKey(shared secret)
    wire.append(noise.encrypt_and_hash(EMPTY))
    return wire, noise


def record(k, number, plaintext):
    """A record on the wire. Transport messages have no associated data."""
    return aead(k, nonce(number), EMPTY, plaintext)
