"""Lifelines whose time a test moves, and ranks of which one falls silent, dies, fails or just ends."""

import contextlib
import json
import os
import socket
import sys

import pytest
from fixtures.processes import LIMIT_S, Started
from fixtures.virtual_time import Clock

from bnnlight.guards import lifeline as module
from bnnlight.guards.lifeline import Lifeline
from bnnlight.guards.meeting_place import Place, call, listen

TIMEOUT_S = 45.0
HOST = socket.gethostname()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    time, selectors = made.modules()
    monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(module, "selectors", selectors)
    return made


class Ranks:
    """Ranks 0, 1 and 2, of which some have a lifeline and the others just a connection.

    Attributes:
        lost: rank → the line by which it lost another, and whether that was silent.
        lifelines: rank → its own.
        links: rank → connections of one that has no lifeline.
    """

    def __init__(self, clock, without):
        self.clock, self.lost, self.lifelines, self.links = clock, {}, {}, {}
        listener, self.place = listen("127.0.0.1", 9, 1, 2)
        if without == 0:
            self.links[0] = [listener]
        else:
            self._start(0, listener)
        for rank in (1, 2):
            link = call(self.place, LIMIT_S)
            if rank == without:
                self.links[rank] = [link]
                hello(link, self.place, rank)
            else:
                self._start(rank, link)
            if without == 0:
                self.links[0].append(listener.accept()[0])
        clock.settle()

    def _start(self, rank, link):
        def lost(line, silent):
            self.lost[rank] = line, silent

        self.lifelines[rank] = Lifeline(rank, TIMEOUT_S, lost, link, self.place)
        self.lifelines[rank].start()

    def cut(self, rank):
        """As the system does it when a process ends, however it ends."""
        for link in self.links.pop(rank):
            link.close()

    def close(self):
        for lifeline in self.lifelines.values():
            if lifeline.is_alive():
                lifeline.end()
        self.clock.pass_(2 * TIMEOUT_S)  # they wait for each other's last word
        for rank in list(self.links):
            self.cut(rank)


@pytest.fixture
def ranks(clock):
    """Make ranks, all of which have a lifeline but one."""
    with contextlib.ExitStack() as at_end:

        def make(without=None):
            made = Ranks(clock, without)
            at_end.callback(made.close)
            return made

        yield make


def hello(link, place, rank):
    """A rank's first word."""
    said = {"kind": "hello", "token": place.token, "rank": rank, "host": "far"}
    link.sendall(json.dumps(said).encode() + b"\n")


@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_that_is_silent_ends_the_others(ranks, clock, victim):
    made = ranks(without=victim)
    clock.pass_(0.9 * TIMEOUT_S)
    assert made.lost == {}
    clock.pass_(0.3 * TIMEOUT_S)
    assert made.lost.keys() == {0, 1, 2} - {victim}
    host = HOST if victim == 0 else "far"
    for line, silent in made.lost.values():
        assert line.startswith(f"rank {victim} on host {host} has not been heard from for 4") and silent


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_the_others(ranks, clock, victim):
    made = ranks(without=victim)
    clock.pass_(TIMEOUT_S / 2)
    made.cut(victim)
    clock.pass_(0.2 * TIMEOUT_S)
    assert made.lost == {}  # the main thread may have heard of it as well
    clock.pass_(0.3 * TIMEOUT_S)
    host = HOST if victim == 0 else "far"
    expected = f"rank {victim} on host {host} is gone: its process was killed or its host went down", False
    assert made.lost == {rank: expected for rank in {0, 1, 2} - {victim}}


@pytest.mark.parametrize("victim", [0, 2])
def test_a_failed_rank_ends_the_others_with_its_error(ranks, clock, victim):
    made = ranks()
    made.lifelines[victim].end("ValueError: no such ant")
    clock.pass_(TIMEOUT_S / 2)
    expected = f"rank {victim} on host {HOST} has ended by an error (ValueError: no such ant)", False
    assert made.lost == {rank: expected for rank in {0, 1, 2} - {victim}}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_ranks_may_end_long_after_each_other(ranks, clock, order):
    made = ranks()
    for number in order:
        made.lifelines[number].end()
        clock.pass_(1.5 * TIMEOUT_S)
    assert made.lost == {} and not any(lifeline.is_alive() for lifeline in made.lifelines.values())


def test_time_passes_and_all_are_alive(ranks, clock):
    made = ranks()
    clock.pass_(10 * TIMEOUT_S)
    assert made.lost == {}


def test_time_in_which_the_whole_run_is_suspended_does_not_count(ranks, clock):
    made = ranks()
    clock.jump(2 * TIMEOUT_S)
    clock.pass_(1.5 * TIMEOUT_S)
    assert made.lost == {}


BUSY = """
import json, os, sys
from bnnlight.guards.lifeline import Lifeline
from bnnlight.guards.meeting_place import listen

link, place = listen("127.0.0.1", 9, 1, 2)
Lifeline(0, 9.0, print, link, place).start()
print(json.dumps(place), flush=True)
while not os.path.exists(sys.argv[1]):
    pass  # never gives way by itself
"""


def test_a_busy_rank_says_that_it_is_alive(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = Started([sys.executable, "-c", BUSY, tmp_path / "end"], env=env)
    with contextlib.closing(process):
        process.wait_until(lambda: process.out.endswith("\n"))
        place = Place(*json.loads(process.out))
        with call(place, LIMIT_S) as link, link.makefile() as said:
            hello(link, place, 1)
            assert [json.loads(said.readline()) for _ in range(2)] == [{"kind": "beat"}] * 2
            link.sendall(b'{"kind": "bye"}\n')
            (tmp_path / "end").touch()
            assert process.ended() == 0, process


@pytest.fixture
def alone(clock):
    """Rank zero in this process, with where it listens and the lines by which it lost somebody."""
    link, place = listen("127.0.0.1", 9, 1, 2)
    lines = []
    lifeline = Lifeline(0, TIMEOUT_S, lambda line, silent: lines.append(line), link, place)
    lifeline.start()
    yield lifeline, place, lines
    lifeline.end()
    clock.pass_(2 * TIMEOUT_S)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"kind": "hello", "token": "wrong", "rank": 1, "host": "x"}\n',
        b'{"kind": "hello", "token": "\xc3\xbc", "rank": 1, "host": "x"}\n',
        b'{"kind": "lost", "line": "all is lost", "silent": true}\n',
        b"[]\n",
        b"a" * 5000,
    ],
)
def test_a_stranger_is_turned_away_and_not_missed(alone, clock, words):
    lifeline, place, lines = alone
    with call(place, LIMIT_S) as stranger:
        stranger.sendall(words)
        try:
            assert stranger.recv(100) == b""
        except ConnectionResetError:  # closed with something unread
            assert len(words) > 4096
    clock.pass_(2 * TIMEOUT_S)
    assert lifeline.is_alive() and lines == [] and lifeline.gone(0) is None


def test_who_died_first_is_known_before_it_counts_as_lost(alone):
    lifeline, place, _ = alone
    with call(place, LIMIT_S) as rank:
        hello(rank, place, 7)
    assert lifeline.gone(LIMIT_S) == "rank 7 on host far is gone: its process was killed or its host went down"


def test_the_port_is_open_to_others_where_there_are_several_hosts():
    for num_hosts, address, bound in ((1, "127.0.0.1", "127.0.0.1"), (2, "localhost", "0.0.0.0")):
        link, place = listen("localhost", 9, num_hosts, 1)
        with link:
            assert link.getsockname() == (bound, place.port)
            assert place == Place(address, place.port, place.token, HOST) and len(place.token) == 32


def test_the_word_of_a_lost_rank_arrives_although_the_listener_talks(alone, clock):
    """What is unread as a process ends resets its connections, and takes along what it said last."""
    _, place, lines = alone
    with call(place, LIMIT_S) as talking, call(place, LIMIT_S) as silent:
        hello(talking, place, 1)
        hello(silent, place, 2)
        talking.setblocking(False)
        said = b""
        while b'"lost"' not in said:
            talking.sendall(b'{"kind": "beat"}\n')
            clock.pass_(0.1)
            with contextlib.suppress(BlockingIOError):
                said += talking.recv(2**16)
        # the process does not end before all have heard it
        talking.sendall(b'{"kind": "beat"}\n')
        assert lines == []
    clock.settle()
    (line,) = lines
    assert line.startswith("rank 2 on host far has not been heard from for 45 s")


def test_a_thread_that_leaves_at_once_does_not_break_the_end(alone, clock):
    """It closes what it is woken by."""
    lifeline, wake = alone[0], alone[0]._wake

    class Late:
        def send(self, data):
            if lifeline._ending is not None:
                clock.pass_(TIMEOUT_S)  # it wakes by itself, and all that it has to do is done
            return wake.send(data)

        def close(self):
            wake.close()

    lifeline._wake = Late()
    lifeline.end()
    lifeline.join(LIMIT_S)
    assert not lifeline.is_alive()
    lifeline.end = lambda: None  # it is ended
