#!/usr/bin/env python3
"""Second implementation of the row table and its history, and the source of their vectors.

    python3 rows_oracle.py > rows_vectors.txt               write the vectors again (about 25 s)
    python3 rows_oracle.py history > history_vectors.txt    the same for chains

It follows the contract in src/rows/mod.rs by other means than the Rust code, so that one mistake is not made
twice: XXH64 from its specification, logarithms from 60-digit decimals, ranks as sorted exact fractions, the
whole ranking of every row kept, and caps as fractions. Standard library only. Slow on purpose.
"""

import math
import random
import struct
import sys
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, getcontext
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address

getcontext().prec = 60

CONTRACT_VERSION = 1
FRACTION_BITS = 56
MASK = (1 << 64) - 1

# The five primes of the XXH64 specification.
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def rotl(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & MASK


def lane_round(acc, lane):
    return rotl((acc + lane * P2) & MASK, 31) * P1 & MASK


def xxh64(data, seed):
    """XXH64 of bytes (xxHash specification, "XXH64 algorithm description")."""
    at = 0
    if len(data) >= 32:
        accs = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while at + 32 <= len(data):
            accs = [lane_round(acc, lane) for acc, lane in zip(accs, struct.unpack_from("<4Q", data, at))]
            at += 32
        acc = sum(rotl(acc, bits) for acc, bits in zip(accs, (1, 7, 12, 18))) & MASK
        for lane in accs:
            acc = ((acc ^ lane_round(0, lane)) * P1 + P4) & MASK
    else:
        acc = (seed + P5) & MASK
    acc = (acc + len(data)) & MASK
    while at + 8 <= len(data):
        acc = (rotl(acc ^ lane_round(0, struct.unpack_from("<Q", data, at)[0]), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= len(data):
        acc = (rotl(acc ^ (struct.unpack_from("<I", data, at)[0] * P1 & MASK), 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        acc = rotl(acc ^ (byte * P5 & MASK), 11) * P1 & MASK
    acc = (acc ^ (acc >> 33)) * P2 & MASK
    acc = (acc ^ (acc >> 29)) * P3 & MASK
    return acc ^ (acc >> 32)


def floor_log2_table():
    """floor(2^56 * log2(1 + i/1024)) for i in 0..=1024."""
    ln2 = Decimal(2).ln()
    exact = [(Decimal(1024 + i) / 1024).ln() / ln2 for i in range(1025)]
    # i = 0 and i = 1024 are whole numbers: a rounded logarithm must not push them below.
    exact[0], exact[1024] = Decimal(0), Decimal(1)
    return [int((value * (1 << FRACTION_BITS)).to_integral_value(ROUND_FLOOR)) for value in exact]


LOG2 = floor_log2_table()


def length(h):
    """-log2(h / 2^64) with 56 fraction bits, by the chord between neighbouring table entries."""
    exponent = h.bit_length() - 1
    place = (Fraction(h, 1 << exponent) - 1) * 1024
    i = math.floor(place)
    log = LOG2[i] + math.floor((LOG2[i + 1] - LOG2[i]) * (place - i))
    return ((64 - exponent) << FRACTION_BITS) - log


def check_length(h):
    """The promised error of `length`, against a 60-digit logarithm."""
    exact = (64 - Decimal(h).ln() / Decimal(2).ln()) * (1 << FRACTION_BITS)
    error = length(h) - exact
    assert error >= -Decimal("1e-30"), (h, error)
    assert error < (1 << (FRACTION_BITS - 22)), (h, error)
    assert error < exact / 4094 + 2, (h, error)


def address_bytes(text):
    ip = ip_address(text)
    return b"\0" * 10 + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed


@dataclass
class Pool:
    name: str
    seed: int
    rows_log2: int
    slack_permille: int
    members: list  # (address text, weight)

    def __post_init__(self):
        self.rows = 1 << self.rows_log2
        self.packed = [address_bytes(address) for address, _ in self.members]

    def member_length(self, row, member):
        return length(xxh64(struct.pack(">I", row) + self.packed[member], self.seed) | 1)

    def ranking(self, row):
        """Member indices, best first."""

        def key(member):
            return Fraction(self.member_length(row, member), self.members[member][1]), self.packed[member]

        return sorted(range(len(self.members)), key=key)

    def order(self):
        def key(row):
            return xxh64(struct.pack(">I", row) + b"order", self.seed), row

        return sorted(range(self.rows), key=key)

    def table(self):
        """(owner, standby) per row; None where there is none."""
        total = sum(weight for _, weight in self.members)
        stretch = 1 + Fraction(self.slack_permille, 1000)
        caps = [math.ceil(Fraction(self.rows * weight, total) * stretch) for _, weight in self.members]
        counts = [0] * len(self.members)
        result = [None] * self.rows
        for row in self.order():
            ranking = self.ranking(row)
            owner = next(member for member in ranking if counts[member] < caps[member])
            counts[owner] += 1
            others = [member for member in ranking if member != owner]
            result[row] = (owner, others[0] if others else None)
        return result

    def digest(self, table):
        def packed(member):
            return bytes(16) if member is None else self.packed[member]

        head = struct.pack(">IQBH", CONTRACT_VERSION, self.seed, self.rows_log2, self.slack_permille)
        return xxh64(head + b"".join(packed(owner) + packed(standby) for owner, standby in table), 0)


def pools():
    pick = random.Random(20)
    v4 = [str(IPv4Address("10.8.11.2") + 256 * i) for i in range(100)]
    v6 = [str(IPv6Address("fd08:11::2") + (i << 96)) for i in range(50)]
    return [
        Pool("alone", 0x5EED0F0FB0A71135, 12, 20, [(v4[0], 1)]),
        Pool("one-to-ten", 0x5EED0F0FB0A71135, 12, 20, [(v4[0], 1), (v4[1], 10)]),
        Pool("both-families", 1, 12, 20, [(v6[0], 3), (v4[0], 3), (v6[1], 7), (v4[1], 1), (v4[2], 2)]),
        Pool("extreme-weights", MASK, 12, 20, [(v4[0], 65535), (v6[0], 1), (v4[1], 40000), (v6[1], 255)]),
        Pool("no-slack", 0, 12, 0, [(address, 1) for address in v4[:7]]),
        Pool("wide-slack", 0x0123456789ABCDEF, 13, 500, [(addr, pick.randint(1, 20)) for addr in v6[:24]]),
        Pool("ten", 0x5EED0F0FB0A71135, 16, 20, [(address, 1) for address in v4[:10]]),
        Pool("hundred", 0x5EED0F0FB0A71135, 13, 20, [(address, pick.choice((1, 2, 4))) for address in v4]),
    ]


def write_pool(pool, pick):
    print(f"\npool {pool.name} {pool.seed:016x} {pool.rows_log2} {pool.slack_permille}")
    for address, weight in pool.members:
        print(f"member {address} {weight}")
    print("order", *pool.order()[:16])
    table = pool.table()
    samples = sorted({0, 1, pool.rows - 1, *(pick.randrange(pool.rows) for _ in range(29))})
    for row in samples[:8]:
        print("rank", row, *pool.ranking(row))
        lengths = [pool.member_length(row, member) for member in range(len(pool.members))]
        print("lengths", row, *(f"{value:x}" for value in lengths))
    for row in samples:
        owner, standby = table[row]
        print("row", row, owner, "-" if standby is None else standby)
    owners = [owner for owner, _ in table]
    print("owned", *(owners.count(member) for member in range(len(pool.members))))
    print(f"digest {pool.digest(table):016x}")


def fold(before, owner, standby):
    """The chain of a row: owner, the chain before, standby, each once and four at most."""
    chain = list(dict.fromkeys([owner, *before] + ([] if standby is None else [standby])))
    while len(chain) > 4:
        del chain[max(at for at, member in enumerate(chain) if member != standby)]
    return chain


def prepared(before, after):
    """The chain between two epochs: the members of the later one, in the order of the earlier one."""
    return [member for member in before if member in after] + [m for m in after if m not in before]


def chains_digest(chains):
    rows = (b"".join(map(address_bytes, chain)).ljust(64, b"\0") for chain in chains)
    return xxh64(struct.pack(">I", CONTRACT_VERSION) + b"".join(rows), 0)


def stories():
    v4 = [str(IPv4Address("10.8.11.2") + 256 * i) for i in range(12)]
    v6 = [str(IPv6Address("fd08:11::2") + (i << 96)) for i in range(12)]
    one = [(address, 1) for address in v4]
    yield "undone", 0x5EED0F0FB0A71135, [one[:2], one[:3], one[:2]]
    yield "replaced", 1, [one[:3], one[:4], one[1:4], one[1:5], one[2:5], one[2:6], one[3:6], one[3:7]]
    yield "alone-then-weights", MASK, [
        [(v6[0], 1)],
        [(v6[0], 1), (v6[1], 5)],
        [(v6[1], 5), (v6[2], 9), (v6[3], 1)],
        [(v6[4], 2)],
    ]


def write_history():
    print("# Vectors of chains, contract version 1.")
    print("# Written by `python3 rows_oracle.py history > history_vectors.txt` beside this file.")
    print("#")
    print("# story NAME SEED ROWS_LOG2 SLACK_PERMILLE; its epochs follow, each with its facts:")
    print("# epoch ADDRESS WEIGHT..")
    print("# prepared D           digest of the chains between the epoch before and this one")
    print("# chains D             digest of the chains of this epoch")
    print("# chain ROW ADDRESS..  the chain of one row")
    for name, seed, epochs in stories():
        print(f"\nstory {name} {seed:016x} 12 20")
        before = None
        for members in epochs:
            print("epoch", *(f"{address} {weight}" for address, weight in members))
            table = Pool(name, seed, 12, 20, members).table()
            address = [None if i is None else members[i][0] for pair in table for i in pair]
            pairs = zip(address[::2], address[1::2])
            after = [fold(old, *pair) for old, pair in zip(before or [[]] * len(table), pairs)]
            if before is not None:
                print(f"prepared {chains_digest([prepared(*pair) for pair in zip(before, after)]):016x}")
            print(f"chains {chains_digest(after):016x}")
            for row in (0, 1, 77, 2048, 4095):
                print("chain", row, *after[row])
            before = after


def main():
    pick = random.Random(10)
    print("# Vectors of the row table, contract version 1.")
    print("# Written by `python3 rows_oracle.py > rows_vectors.txt` beside this file, an implementation of its")
    print("# own; a change here means that load balancers of two versions place flows differently.")
    print("#")
    print("# log2 I V             floor(2^56 * log2(1 + I/1024)), V in hexadecimal")
    print("# length H L           -log2(H / 2^64) with 56 fraction bits, both in hexadecimal")
    print("# pool NAME SEED ROWS_LOG2 SLACK_PERMILLE; its members, numbered from 0, and facts follow:")
    print("# member ADDRESS WEIGHT")
    print("# order ROW..          the first rows in the order of visits")
    print("# rank ROW MEMBER..    all members, best first")
    print("# lengths ROW L..      the length of each member, by member number, in hexadecimal")
    print("# row ROW OWNER STANDBY   '-' = none")
    print("# owned COUNT..        rows of each member in the whole table")
    print("# digest D             owners digest of the whole table")
    print()
    for i in (0, 1, 2, 3, 511, 512, 513, 600, 1000, 1022, 1023, 1024):
        print(f"log2 {i} {LOG2[i]:x}")
    edges = [1, 3, 5, 255, (1 << 32) + 1, (1 << 63) - 1, (1 << 63) + 1, (1 << 64) - 1, (1 << 64) - 255]
    edges += [((1024 + i) << 53) + step for i in (1, 512, 1023) for step in (-1, 1)]
    for h in edges + [pick.getrandbits(64) | 1 for _ in range(40)]:
        print(f"length {h:x} {length(h):x}")
    for _ in range(5000):
        check_length(pick.getrandbits(64) | 1)
        check_length(((1 << 64) - pick.getrandbits(pick.randint(2, 56))) | 1)
        check_length(pick.getrandbits(pick.randint(1, 64)) | 1)
    for pool in pools():
        write_pool(pool, pick)


if __name__ == "__main__":
    # Published test values of XXH64, so that the oracle itself stands on something.
    assert xxh64(b"", 0) == 0xEF46DB3751D8E999
    assert xxh64(b"a", 0) == 0xD24EC4F1A98C6E5B
    assert xxh64(b"Nobody inspects the spammish repetition", 0) == 0xFBCEA83C8A378BF1
    write_history() if sys.argv[1:] == ["history"] else main()
