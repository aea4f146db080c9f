"""What both ends derive from a key file."""

import hashlib
import hmac
import struct


class Failure(Exception):
    """Why a connection ended; the text goes into the report."""


class Key:
    """What is derived from a key file."""

    def __init__(self, file):
        if not 32 <= len(file) <= 65536:
            raise Failure("a key file has 32 bytes to 64 KiB")
        derive = lambda info, length: hkdf(b"spiped-2 key file", file, info, length)
        self.psk = derive(b"psk", 32)
        self.id = grouped(derive(b"key id", 8))
        self.hint_key = derive(b"hint", 16)

    def hint(self, suite, e):
        return siphash_2_4(self.hint_key, bytes([suite]) + e)


def hmac_sha256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(salt, ikm, info, length):
    """RFC 5869, for at most 32 bytes."""
    return hmac_sha256(hmac_sha256(salt, ikm), info + b"\x01")[:length]


def grouped(eight_bytes):
    text = eight_bytes.hex()
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


def siphash_2_4(key, data):
    """SipHash-2-4 (Aumasson and Bernstein), 8 bytes, little endian."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
         k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    rotate = lambda x, by: (x << by | x >> (64 - by)) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask; v[1] = rotate(v[1], 13) ^ v[0]; v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & mask; v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask; v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask; v[1] = rotate(v[1], 17) ^ v[2]; v[2] = rotate(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])
