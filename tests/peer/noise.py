"""The cryptography of spiped 2: the Noise handshake and the records.

Written from the text of the protocol, on other libraries than the program's: X25519 and
the ciphers are PyCryptodome's, ML-KEM is kyber-py's, SHA-256 and HMAC are Python's.
"""

import hashlib
import hmac
import os
import struct

from Crypto.Cipher import AES, ChaCha20_Poly1305
from Crypto.Protocol.DH import (
    import_x25519_private_key,
    import_x25519_public_key,
    key_agreement,
)
from kyber_py.ml_kem import ML_KEM_768

from keys import Failure, grouped, hkdf, hmac_sha256

TAG, EK, CT = 16, 1184, 1088
SUITES = {
    2: "Noise_NNpsk0_25519_ChaChaPoly_SHA256",
    3: "Noise_NNpsk0_25519_AESGCM_SHA256",
    4: "Noise_NNhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256",
    5: "Noise_NNhfs+psk0_25519+MLKEM768_AESGCM_SHA256",
}
REKEY_EVERY = 1 << 20


def is_hybrid(suite):
    return suite in (4, 5)


def length_of_message_1(suite):
    return 1 + 8 + 32 + (EK + TAG if is_hybrid(suite) else 0) + TAG


def length_of_message_2(suite):
    return 32 + (CT + TAG if is_hybrid(suite) else 0) + TAG


class X25519:
    def __init__(self, private=None):
        self.private = import_x25519_private_key(private or os.urandom(32))
        self.public = self.private.public_key().export_key(format="raw")

    def agree(self, public):
        try:
            public = import_x25519_public_key(public)
            shared = key_agreement(static_priv=self.private, static_pub=public, kdf=bytes)
        except ValueError:
            raise Failure("all-zero dh result") from None
        if not any(shared):
            raise Failure("all-zero dh result")
        return shared


class CipherState:
    """Noise 5.1, and one direction of records."""

    def __init__(self, suite, key, rekey_every=REKEY_EVERY):
        self.suite, self.key, self.n, self.rekey_every = suite, key, 0, rekey_every

    def cipher(self, n, ad):
        if self.suite in (3, 5):
            nonce = bytes(4) + n.to_bytes(8, "big")
            cipher = AES.new(self.key, AES.MODE_GCM, nonce=nonce, mac_len=TAG)
        else:
            nonce = bytes(4) + n.to_bytes(8, "little")
            cipher = ChaCha20_Poly1305.new(key=self.key, nonce=nonce)
        cipher.update(ad)
        return cipher

    def encrypt(self, ad, plaintext):
        ciphertext, tag = self.cipher(self.n, ad).encrypt_and_digest(plaintext)
        self.n += 1
        return ciphertext + tag

    def decrypt(self, ad, ciphertext):
        body, tag = ciphertext[:-TAG], ciphertext[-TAG:]
        try:
            plaintext = self.cipher(self.n, ad).decrypt_and_verify(body, tag)
        except ValueError:
            raise Failure("wrong tag") from None
        self.n += 1
        return plaintext

    def rekey_when_due(self):
        if self.n > 0 and self.n % self.rekey_every == 0:
            self.key = self.cipher(2**64 - 1, b"").encrypt(bytes(32))

    def seal(self, plaintext):
        """One record: length(2) || ciphertext."""
        self.rekey_when_due()
        ciphertext = self.encrypt(b"", plaintext)
        return struct.pack(">H", len(ciphertext)) + ciphertext

    def open(self, ciphertext):
        """The plaintext of a record without its length."""
        self.rekey_when_due()
        return self.decrypt(b"", ciphertext)


class SymmetricState:
    """Noise 5.2."""

    def __init__(self, suite, prologue):
        name = SUITES[suite].encode()
        self.suite = suite
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self.ck = self.h
        self.cipher = None
        self.mix_hash(prologue)

    def hkdf(self, ikm, count):
        temporary, outputs, last = hmac_sha256(self.ck, ikm), [], b""
        for i in range(1, count + 1):
            last = hmac_sha256(temporary, last + bytes([i]))
            outputs.append(last)
        return outputs

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, ikm):
        self.ck, key = self.hkdf(ikm, 2)
        self.cipher = CipherState(self.suite, key)

    def mix_psk(self, psk):
        self.ck, to_hash, key = self.hkdf(psk, 3)
        self.mix_hash(to_hash)
        self.cipher = CipherState(self.suite, key)

    def mix_e(self, public):
        """The token e; with a psk, it goes into the key, too (9.2)."""
        self.mix_hash(public)
        self.mix_key(public)

    def encrypt_and_hash(self, plaintext):
        ciphertext = self.cipher.encrypt(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext):
        plaintext = self.cipher.decrypt(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self, rekey_every):
        return [CipherState(self.suite, key, rekey_every) for key in self.hkdf(b"", 2)]


class Session:
    """What both ends have after the handshake."""

    def __init__(self, role, state, key, rekey_every):
        to_responder, to_initiator = state.split(rekey_every)
        ours = (to_responder, to_initiator)
        self.sending, self.receiving = ours if role == "initiator" else ours[::-1]
        self.suite, self.key_id, self.handshake_hash = state.suite, key.id, state.h
        self.connection_id = grouped(hkdf(state.h, b"", b"connection id", 8))


class Faults:
    """What a hostile end does wrong in its handshake; nothing by default."""

    def __init__(self, wrong_hint=False, low_order=False, bad_ek=False, bad_ct=False):
        self.wrong_hint, self.low_order = wrong_hint, low_order
        self.bad_ek, self.bad_ct = bad_ek, bad_ct


class Initiator:
    def __init__(self, suite, key, faults=Faults(), private=None, d_z=None):
        self.suite, self.key = suite, key
        self.e = X25519(private)
        public = bytes(32) if faults.low_order else self.e.public
        self.hint = key.hint(suite, public)
        if faults.wrong_hint:
            self.hint = bytes([self.hint[0] ^ 1]) + self.hint[1:]
        self.prologue = b"spiped-2" + bytes([suite]) + self.hint
        self.state = state = SymmetricState(suite, self.prologue)
        state.mix_psk(key.psk)
        state.mix_e(public)
        message = bytes([suite]) + self.hint + public
        if is_hybrid(suite):
            d_z = d_z or os.urandom(64)
            ek, self.dk = ML_KEM_768._keygen_internal(d_z[:32], d_z[32:])
            if faults.bad_ek:
                # The first coefficient (12 bits, little endian) is q = 3329 = 0xd01.
                ek = bytes([0x01, ek[1] & 0xF0 | 0x0D]) + ek[2:]
            message += state.encrypt_and_hash(ek)
        self.message_1 = message + state.encrypt_and_hash(b"")

    def finish(self, message_2, rekey_every=REKEY_EVERY):
        state, public, rest = self.state, message_2[:32], message_2[32:]
        state.mix_e(public)
        state.mix_key(self.e.agree(public))
        if is_hybrid(self.suite):
            ct = state.decrypt_and_hash(rest[: CT + TAG])
            state.mix_key(ML_KEM_768.decaps(self.dk, ct))
            rest = rest[CT + TAG :]
        state.decrypt_and_hash(rest)
        return Session("initiator", state, self.key, rekey_every)


class Responder:
    """Rule H2: takes message 1 with whichever key fits."""

    def __init__(self, keys, message_1):
        self.suite = suite = message_1[0]
        self.hint, self.e_i = hint, public = message_1[1:9], message_1[9:41]
        self.ek = None
        for key in keys:
            if not hmac.compare_digest(key.hint(suite, public), hint):
                continue
            self.state = state = SymmetricState(suite, b"spiped-2" + bytes([suite]) + hint)
            state.mix_psk(key.psk)
            state.mix_e(public)
            rest = message_1[41:]
            try:
                if is_hybrid(suite):
                    self.ek = state.decrypt_and_hash(rest[: EK + TAG])
                    rest = rest[EK + TAG :]
                state.decrypt_and_hash(rest)
            except Failure:
                continue
            self.key = key
            return
        raise Failure("no key fits")

    def answer(self, faults=Faults(), private=None, m=None, rekey_every=REKEY_EVERY):
        """Returns message 2 and the session."""
        state, e = self.state, X25519(private)
        if is_hybrid(self.suite):
            try:
                shared, ct = ML_KEM_768._encaps_internal(self.ek, m or os.urandom(32))
            except ValueError:
                raise Failure("bad encapsulation key") from None
        public = bytes(32) if faults.low_order else e.public
        state.mix_e(public)
        state.mix_key(e.agree(self.e_i))
        message = public
        if is_hybrid(self.suite):
            if faults.bad_ct:
                ct = bytes([ct[0] ^ 1]) + ct[1:]
            message += state.encrypt_and_hash(ct)
            state.mix_key(shared)
        message += state.encrypt_and_hash(b"")
        return message, Session("responder", state, self.key, rekey_every)
