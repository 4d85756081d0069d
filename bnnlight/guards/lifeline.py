"""`Lifeline`: connections between the processes of a run, over which each says that it is alive."""

from __future__ import annotations

import contextlib
import hmac
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bnnlight.guards.meeting_place import Place

_BEATS = 9  # within the timeout; a few may come late
_LONGEST_MESSAGE = 4096  # bytes


@dataclass
class _Peer:
    link: socket.socket
    heard_at: float
    rank: int | None = None  # until it has said who it is
    host: str = ""
    unread: bytes = field(default=b"", repr=False)  # the beginning of a message
    left: bool = False  # it said goodbye
    gone_at: float | None = None
    why: str = ""


class Lifeline(threading.Thread):
    """A thread that says "alive" to the other ranks and calls ``lost`` once when one of them is not.

    Rank zero listens, each other rank holds a connection to it. A rank is lost when nothing came from it for
    ``timeout_s``, or when its connection closed, or it told of an error, and a quarter of that time has passed since:
    the main thread may have heard of it as well and end in good order. Rank zero tells the others whom it lost.

    Time is that of the watching thread alone. Where the thread itself did not get to run (the whole machine slept,
    or the job was suspended), nobody's silence counts.

    Args:
        rank: of this process.
        timeout_s: seconds of silence after which a rank counts as lost.
        lost: called from the thread with a line that names the rank and its host, and whether it was silent (rather
            than closed or failed).
        link: rank zero's listening socket (``listen``), or another rank's connection to it (``call``).
        place: where rank zero listens.
    """

    def __init__(
        self, rank: int, timeout_s: float, lost: Callable[[str, bool], None], link: socket.socket, place: Place
    ) -> None:
        super().__init__(name="bnnlight-lifeline", daemon=True)
        self._rank, self._timeout_s, self._lost, self._place = rank, timeout_s, lost, place
        self._interval_s = timeout_s / _BEATS
        self._listener = link if rank == 0 else None
        self._peers: list[_Peer] = []
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._lost_peer: tuple[str, bool] | None = None
        self._gone_line: str | None = None
        self._gone = threading.Event()
        self._ending: dict[str, Any] | None = None
        self._ended = threading.Event()
        link.setblocking(False)
        if rank == 0:
            self._selector.register(link, selectors.EVENT_READ)
        else:
            peer = self._add(link)
            peer.rank, peer.host = 0, place.host
            self._say(peer, {"kind": "hello", "token": place.token, "rank": rank, "host": socket.gethostname()})

    def end(self, error: str | None = None) -> None:
        """Says goodbye, or names the error that ends this process, and watches no longer."""
        # first: a thread that is awake anyway may have left, and closed this, as soon as it is told
        self._wake.send(b".")
        self._ending = {"kind": "bye"} if error is None else {"kind": "failed", "why": error[:500]}
        # on a busy machine it takes its time; gone without a goodbye, this process would count as killed
        self._ended.wait(self._timeout_s)

    def gone(self, wait_s: float) -> str | None:
        """Which rank's end was heard of first, as a line; None where there was none, ``wait_s`` later either."""
        self._gone.wait(wait_s)
        return self._gone_line

    def run(self) -> None:
        try:
            self._watch()
        finally:
            self._ended.set()

    def _watch(self) -> None:
        looked_at = beat_at = time.monotonic()
        while self._ending is None:
            ready = self._selector.select(self._interval_s)
            now = time.monotonic()
            self._read(ready, now)
            if now - looked_at > 2 * self._interval_s:
                for peer in self._peers:
                    peer.heard_at = now
            looked_at = now
            if now - beat_at >= self._interval_s:
                beat_at = now
                for peer in self._members():
                    self._say(peer, {"kind": "beat"})
            self._find_lost(now)
            if self._lost_peer:
                self._tell("lost", line=self._lost_peer[0], silent=self._lost_peer[1])
                self._hand_over(min(1.0, self._timeout_s / 4))
                # asked again: the main thread may have come to an end of its own in the meantime
                if self._ending is None:
                    self._lost(*self._lost_peer)
                    return
        self._leave()

    def _members(self) -> list[_Peer]:
        return [peer for peer in self._peers if peer.rank is not None and not peer.left]

    def _find_lost(self, now: float) -> None:
        for peer in self._members():
            silence_s = now - peer.heard_at
            if peer.gone_at is not None and now - peer.gone_at >= self._timeout_s / 4:
                self._lost_peer = self._lost_peer or (peer.why, False)
            elif peer.gone_at is None and silence_s >= self._timeout_s:
                line = f"rank {peer.rank} on host {peer.host} has not been heard from for {silence_s:.0f} s"
                self._lost_peer = self._lost_peer or (line, True)

    def _add(self, link: socket.socket) -> _Peer:
        link.setblocking(False)
        peer = _Peer(link, time.monotonic())
        self._peers.append(peer)
        self._selector.register(link, selectors.EVENT_READ, peer)
        return peer

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]], now: float) -> None:
        for key, _ in ready:
            if key.fileobj is self._listener:
                with contextlib.suppress(OSError):  # the caller may have gone again
                    self._add(self._listener.accept()[0])
            elif key.data is not None:
                self._hear(key.data, now)

    def _hear(self, peer: _Peer, now: float) -> None:
        try:
            data = peer.link.recv(_LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, peer.unread = (peer.unread + data).split(b"\n")
        peer.heard_at = now
        welcome = all([self._take(peer, line, now) for line in lines])
        if not data or not welcome or len(peer.unread) > _LONGEST_MESSAGE:
            self._close(peer, now)

    def _take(self, peer: _Peer, line: bytes, now: float) -> bool:
        """Whether the message may be one of this run's."""
        try:
            message = dict(json.loads(line))
            kind = message["kind"]
            if peer.rank is None:
                if kind != "hello" or not hmac.compare_digest(str(message["token"]), self._place.token):
                    return False
                peer.rank, peer.host = int(message["rank"]), str(message["host"])
            elif kind == "bye":
                peer.left = True
            elif kind == "failed":
                self._note_end(peer, f"has ended by an error ({message['why']})", now)
            elif kind == "gone":
                self._gone_line = self._gone_line or str(message["line"])
                self._gone.set()
            elif kind == "lost":
                self._lost_peer = str(message["line"]), bool(message["silent"])
        except (ValueError, KeyError, TypeError):
            return False
        return True

    def _close(self, peer: _Peer, now: float) -> None:
        self._selector.unregister(peer.link)
        peer.link.close()
        if peer.rank is None or peer.left:
            self._peers.remove(peer)
        elif peer.gone_at is None:
            self._note_end(peer, "is gone: its process was killed or its host went down", now)

    def _note_end(self, peer: _Peer, how: str, now: float) -> None:
        peer.gone_at, peer.why = now, f"rank {peer.rank} on host {peer.host} {how}"
        self._gone_line = self._gone_line or peer.why
        self._gone.set()
        self._tell("gone", line=self._gone_line)

    def _say(self, peer: _Peer, message: dict[str, Any]) -> None:
        # whoever does not take it is found by silence, or by the end of the connection
        with contextlib.suppress(OSError):
            peer.link.send(json.dumps(message).encode() + b"\n")

    def _tell(self, kind: str, **what: Any) -> None:
        for peer in self._members():
            self._say(peer, {"kind": kind, **what})

    def _leave(self) -> None:
        """Hands over the last word, and waits for the others' before the connections close."""
        self._tell(**self._ending)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
        self._selector.unregister(self._woken)
        self._ended.set()
        self._hand_over(self._timeout_s)
        for peer in self._peers:
            peer.link.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _hand_over(self, wait_s: float) -> None:
        """Says that nothing more will come, and reads until the others close.

        Ending at once, with something unread, would reset the connections, and a last word on its way be lost.
        """
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.link.shutdown(socket.SHUT_WR)
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0 and any(peer.link.fileno() >= 0 for peer in self._peers):
            self._read(self._selector.select(left), time.monotonic())
