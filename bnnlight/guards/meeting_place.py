"""How the processes of a run find rank zero: the port that it opens, and the call of the others."""

from __future__ import annotations

import secrets
import socket
from typing import NamedTuple


class Place(NamedTuple):
    """Where rank zero listens, as it tells the others."""

    address: str
    port: int
    token: str
    """Secret of the run: what else finds the port is turned away."""
    host: str
    """Name of rank zero's host."""


def listen(main_address: str, main_port: int, num_hosts: int, num_callers: int) -> tuple[socket.socket, Place]:
    """Opens rank zero's port, on the way to the run's main address, which need not be on rank zero's host.

    Args:
        main_address: where the run's processes first met.
        main_port: the port there.
        num_hosts: with one, nothing outside the host can reach the port where the main address is a loopback.
        num_callers: ranks that will call.

    Raises:
        OSError: the main address cannot be looked up, or no port be opened.
    """
    family, kind, _, _, target = socket.getaddrinfo(main_address, main_port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)  # sends nothing, but chooses the address from which one would send
        own = probe.getsockname()[0]
    bind = own
    if num_hosts > 1 and (own.startswith("127.") or own == "::1"):
        # a host's own name is often a loopback to itself; to the others it is not
        own, bind = main_address, ""
    listener = socket.create_server((bind, 0), family=family, backlog=max(num_callers, 1))
    return listener, Place(own, listener.getsockname()[1], secrets.token_hex(16), socket.gethostname())


def call(place: Place, timeout_s: float) -> socket.socket:
    """Connects to rank zero.

    Raises:
        OSError: nobody answers within ``timeout_s``.
    """
    return socket.create_connection((place.address, place.port), timeout_s)
