"""Plain processes that hang, as in a collective call, while one of them stops, dies, fails or just ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from bnnlight.guards.lifeline import Lifeline
from bnnlight.guards.meeting_place import Place, call, listen

TIMEOUT_S = 2.0
HOST = socket.gethostname()
PROCESS = """
import json, os, sys, time
from bnnlight.guards.lifeline import Lifeline
from bnnlight.guards.meeting_place import Place, call, listen

rank, timeout_s = int(sys.argv[1]), float(sys.argv[2])
if rank == 0:
    link, place = listen("127.0.0.1", 9, 1, 2)
else:
    place = Place(*json.loads(sys.argv[3]))
    link = call(place, 10)

def lost(line, silent):
    os.write(1, f"lost: {line}\\n".encode())
    os._exit(75 if silent else 1)

lifeline = Lifeline(rank, timeout_s, lost, link, place)
lifeline.start()
print(json.dumps(place), flush=True)
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "end":
        lifeline.end(rest or None)
    elif word == "busy":
        until = time.monotonic() + float(rest)
        while time.monotonic() < until:
            pass
    print(word, flush=True)
"""


@pytest.fixture
def ranks():
    """Three processes with a lifeline; each does what its standard input says."""
    started = []

    def start(rank, place):
        command = [sys.executable, "-c", PROCESS, str(rank), str(TIMEOUT_S), place]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, bufsize=1, env={**os.environ, "PYTHONPATH": path}, **pipes))
        return started[-1].stdout.readline()

    path = os.pathsep.join(sys.path)
    place = start(0, "")
    for rank in (1, 2):
        start(rank, place)
    time.sleep(TIMEOUT_S / 2)  # all have said who they are
    yield started
    for process in started:
        process.kill()  # a stopped one, too
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()


def tell(process, word):
    """Have a process do something and wait until it is done."""
    process.stdin.write(f"{word}\n")
    assert process.stdout.readline() == word.split(" ")[0] + "\n"


def last_words(process):
    """What a process says and with which status it ends."""
    code = process.wait(30)
    return process.stdout.read().strip(), code


@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_that_stands_still_ends_the_others(ranks, victim):
    os.kill(ranks[victim].pid, signal.SIGSTOP)
    for process in ranks:
        if process is not ranks[victim]:
            text, code = last_words(process)
            assert text.startswith(f"lost: rank {victim} on host {HOST} has not been heard from for ")
            assert code == 75


def test_the_word_of_a_lost_rank_arrives_although_the_listener_talks():
    """What is unread as a process ends resets its connections, and takes along what it said last."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PROCESS, "0", str(TIMEOUT_S), ""], text=True, env=env, **pipes)
    place = Place(*json.loads(process.stdout.readline()))
    talking, silent = call(place, 10), call(place, 10)
    with process, talking, silent:
        for rank, link in ((1, talking), (2, silent)):
            hello = {"kind": "hello", "token": place.token, "rank": rank, "host": "here"}
            link.sendall(json.dumps(hello).encode() + b"\n")
        talking.settimeout(10)
        until = None
        while until is None or time.monotonic() < until:
            talking.sendall(b'{"kind": "beat"}\n')
            if until is None and b'"lost"' in talking.recv(2**16, socket.MSG_PEEK):
                until = time.monotonic() + TIMEOUT_S / 10
            time.sleep(0.002)
        said = talking.recv(2**16)
    (line,) = [json.loads(line) for line in said.splitlines() if b'"lost"' in line]
    assert line["line"].startswith("rank 2 on host here has not been heard from for ")


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_the_others(ranks, victim):
    ranks[victim].kill()
    expected = f"lost: rank {victim} on host {HOST} is gone: its process was killed or its host went down", 1
    assert [last_words(process) for process in ranks if process is not ranks[victim]] == [expected] * 2


@pytest.mark.parametrize("victim", [0, 2])
def test_a_failed_rank_ends_the_others_with_its_error(ranks, victim):
    tell(ranks[victim], "end ValueError: no such ant")
    expected = f"lost: rank {victim} on host {HOST} has ended by an error (ValueError: no such ant)", 1
    assert [last_words(process) for process in ranks if process is not ranks[victim]] == [expected] * 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_ranks_may_end_long_after_each_other(ranks, order):
    for number in order:
        tell(ranks[number], "end")
        ranks[number].stdin.close()
        assert last_words(ranks[number]) == ("", 0)
        if number == order[0]:
            time.sleep(1.5 * TIMEOUT_S)


def test_a_busy_rank_is_alive(ranks):
    for process in ranks:
        process.stdin.write(f"busy {2 * TIMEOUT_S}\n")
    for process in ranks:
        assert process.stdout.readline() == "busy\n"
        tell(process, "end")


def test_time_in_which_the_whole_run_is_suspended_does_not_count(ranks):
    for process in ranks:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2 * TIMEOUT_S)
    for process in ranks:
        os.kill(process.pid, signal.SIGCONT)
    time.sleep(1.5 * TIMEOUT_S)
    for process in ranks:
        tell(process, "end")


@pytest.fixture
def alone():
    """Rank zero in this process, with where it listens and the lines by which it lost somebody."""
    link, place = listen("127.0.0.1", 9, 1, 2)
    lines = []
    lifeline = Lifeline(0, TIMEOUT_S, lambda line, silent: lines.append(line), link, place)
    lifeline.start()
    yield lifeline, place, lines
    lifeline.end()


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
def test_a_stranger_is_turned_away_and_not_missed(alone, words):
    lifeline, place, lines = alone
    with call(place, 10) as stranger:
        stranger.sendall(words)
        stranger.settimeout(20)
        try:
            assert stranger.recv(100) == b""
        except ConnectionResetError:  # closed with something unread
            assert len(words) > 4096
    time.sleep(TIMEOUT_S)
    assert lifeline.is_alive() and lines == [] and lifeline.gone(0) is None


def test_who_died_first_is_known_before_it_counts_as_lost(alone):
    lifeline, place, _ = alone
    with call(place, 10) as rank:
        hello = {"kind": "hello", "token": place.token, "rank": 7, "host": "far"}
        rank.sendall(json.dumps(hello).encode() + b"\n")
    assert lifeline.gone(10) == "rank 7 on host far is gone: its process was killed or its host went down"


def test_the_port_is_open_to_others_where_there_are_several_hosts():
    for num_hosts, address, bound in ((1, "127.0.0.1", "127.0.0.1"), (2, "localhost", "0.0.0.0")):
        link, place = listen("localhost", 9, num_hosts, 1)
        with link:
            assert link.getsockname() == (bound, place.port)
            assert place == Place(address, place.port, place.token, HOST) and len(place.token) == 32
