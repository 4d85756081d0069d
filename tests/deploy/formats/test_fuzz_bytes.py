"""Packed files whose bytes changed at random: every one is refused in one line.

The random files are the same on every run: each comes from its own seed, which the test's message has.
"""

import random
import struct

import pytest
from fixtures.sealed_files import refused


def bit_flip(rng, content):
    place = rng.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8


def header_flip(rng, content):
    # the header's length and its first bytes, where a change goes furthest
    content[rng.randrange(40)] ^= 1 << rng.randrange(8)


def byte_changes(rng, content):
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def truncation(rng, content):
    del content[rng.randrange(len(content)) :]


def insertion(rng, content):
    place = rng.randrange(len(content) + 1)
    content[place:place] = rng.randbytes(rng.randint(1, 50))


def deletion(rng, content):
    place = rng.randrange(len(content))
    del content[place : place + rng.randint(1, 50)]


def swapped_blocks(rng, content):
    size = rng.randint(1, 200)
    one, two = (rng.randrange(len(content) - size) for _ in range(2))
    content[one : one + size], content[two : two + size] = content[two : two + size], content[one : one + size]


def zeroed(rng, content):
    place, size = rng.randrange(len(content)), rng.randint(1, 500)
    content[place : place + size] = bytes(len(content[place : place + size]))


def doubled(rng, content):
    content += content[: rng.choice([len(content), rng.randrange(1, len(content))])]


def digit(rng, content):
    # numbers in the header: shapes, offsets, settings
    places = [i for i, byte in enumerate(content[:3000]) if 48 <= byte < 58]
    content[rng.choice(places)] = rng.choice(b"0123456789")


def noise(rng, content):
    start = content[: rng.choice([0, 8, 9, 60, 500])]
    content[:] = start + rng.randbytes(rng.randrange(3000))


def json_noise(rng, content):
    text = "".join(rng.choice('{}[]",:0123456789aetrue null\\u') for _ in range(rng.randrange(300))).encode()
    content[:] = struct.pack("<Q", len(text)) + b"{" + text[1:] + rng.randbytes(rng.randrange(50))


BYTES = (bit_flip, header_flip, byte_changes, truncation, insertion, deletion, swapped_blocks, zeroed, doubled, digit)
BYTES += (noise, json_noise)


@pytest.mark.parametrize("change", BYTES, ids=lambda change: change.__name__)
def test_a_file_whose_bytes_changed_is_refused(sealed_file, bounded, change):
    original = sealed_file.read_bytes()
    assert not refused(sealed_file)
    changed = 0
    for seed in range(300):
        bounded()
        content = bytearray(original)
        change(random.Random(seed), content)
        if content != original:
            changed += 1
            sealed_file.write_bytes(content)
            assert refused(sealed_file), f"seed {seed}"
    assert changed >= 250
