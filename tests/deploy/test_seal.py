"""The checksum inside a file."""

import hashlib

import pytest

from bnnlight.deploy.seal import EMPTY, PREFIX, Damaged, check_seal, sealed

CONTENT = b"before " + (PREFIX + EMPTY).encode() + b" after"


def test_the_seal_is_the_sha256_of_length_content_and_second_file():
    digest = hashlib.sha256(len(CONTENT).to_bytes(8, "little") + CONTENT + b"second").hexdigest()
    assert sealed(CONTENT, b"second") == b"before sha256:" + digest.encode() + b" after"


def seal_of(content):
    return content[7 : 7 + len(PREFIX + EMPTY)].decode()


def test_a_sealed_content_is_accepted_and_every_other_bit_is_not():
    content = sealed(CONTENT, b"two")
    seal = seal_of(content)
    check_seal(content, seal, b"two")
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            check_seal(bytes(changed), seal, b"two")
    for also in (b"", b"twO", b"two "):
        with pytest.raises(Damaged):
            check_seal(content, seal, also)


def test_bytes_cannot_move_from_the_content_to_the_second_file():
    content = sealed(CONTENT, b"two")
    with pytest.raises(Damaged):
        check_seal(content + b"t", seal_of(content), b"wo")


@pytest.mark.parametrize(
    "seal",
    ["", "sha256:", PREFIX + EMPTY, PREFIX + "A" * 64, PREFIX + "0" * 63 + "\ud800", PREFIX + "0" * 63 + "é", None, 3],
)
def test_what_is_no_seal_is_refused(seal, check_one_line):
    with pytest.raises(Damaged) as error:
        check_seal(sealed(CONTENT), seal)
    check_one_line(error, "checksum", "export it again")


def test_a_seal_that_stands_there_twice_or_not_at_all_is_refused():
    content = sealed(CONTENT)
    seal = seal_of(content)
    with pytest.raises(Damaged, match="no valid checksum"):
        check_seal(content + seal.encode(), seal)
    with pytest.raises(Damaged, match="no valid checksum"):
        check_seal(b"before  after", seal)


@pytest.mark.parametrize(("content", "count"), [(b"nothing", 0), (CONTENT + CONTENT, 2)])
def test_a_content_needs_one_place_for_the_seal(content, count):
    with pytest.raises(ValueError, match=f"{count} places for a checksum"):
        sealed(content)
