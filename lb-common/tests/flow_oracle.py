#!/usr/bin/env python3
"""Second source for the flow hash: prints flow_vectors.txt. Standard library only.

Run: python3 lb-common/tests/flow_oracle.py > lb-common/tests/flow_vectors.txt
The XXH64 here follows the algorithm's published specification and shares no code with the Rust side.
"""
import ipaddress

M = (1 << 64) - 1
P = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & M


def lane(acc, word):
    return rotl((acc + word * P[1]) & M, 31) * P[0] & M


def xxh64(data, seed):
    words = lambda at: int.from_bytes(data[at:at + 8], "little")
    at = 0
    if len(data) >= 32:
        acc = [(seed + P[0] + P[1]) & M, (seed + P[1]) & M, seed, (seed - P[0]) & M]
        while at + 32 <= len(data):
            acc = [lane(a, words(at + 8 * i)) for i, a in enumerate(acc)]
            at += 32
        h = sum(rotl(a, n) for a, n in zip(acc, (1, 7, 12, 18))) & M
        for a in acc:
            h = ((h ^ lane(0, a)) * P[0] + P[3]) & M
    else:
        h = (seed + P[4]) & M
    h = (h + len(data)) & M
    while at + 8 <= len(data):
        h = (rotl(h ^ lane(0, words(at)), 27) * P[0] + P[3]) & M
        at += 8
    if at + 4 <= len(data):
        h = (rotl(h ^ (int.from_bytes(data[at:at + 4], "little") * P[0] & M), 23) * P[1] + P[2]) & M
        at += 4
    for byte in data[at:]:
        h = rotl(h ^ (byte * P[4] & M), 11) * P[0] & M
    h = (h ^ (h >> 33)) * P[1] & M
    h = (h ^ (h >> 29)) * P[2] & M
    return h ^ (h >> 32)


assert xxh64(b"", 0) == 0xEF46DB3751D8E999, "the specification's own check value"
assert xxh64(b"abc", 0) == 0x44BC2CF5AD770999


def sixteen(text):
    ip = ipaddress.ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


FLOWS = [
    ("10.8.0.2", 40000, "203.0.113.10", 80, 6, 0),
    ("10.8.0.2", 40001, "203.0.113.10", 80, 6, 0),
    ("10.8.0.2", 40000, "203.0.113.10", 80, 17, 0),
    ("10.8.0.2", 40000, "203.0.113.10", 80, 6, 0x5EED0F0FB0A71135),
    ("192.0.2.255", 1, "198.51.100.1", 65535, 17, 0xFFFFFFFFFFFFFFFF),
    ("2001:db8::1", 443, "2001:db8:100::10", 443, 6, 0),
    ("2001:db8::1", 443, "2001:db8:100::10", 443, 6, 0x5EED0F0FB0A71135),
    ("fe80::dead:beef", 0, "2001:db8:100::10", 0, 17, 1),
    ("::", 0, "::", 0, 0, 0),
]

print("# Frozen vectors of contract version 1, printed by flow_oracle.py.")
print("# source sport destination dport protocol seed hash row-of-65536")
for source, sport, destination, dport, protocol, seed in FLOWS:
    key = sixteen(source) + sixteen(destination) + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    h = xxh64(key + bytes([protocol, 0, 0, 0]), seed)
    print(source, sport, destination, dport, protocol, f"{seed:016x}", f"{h:016x}", h >> 48)
