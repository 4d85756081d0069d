"""The service of docs/service.py, as a process of its own."""

import http.client
import io
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fixtures.processes import LIMIT_S, Started
from PIL import Image

from bnnlight.deploy import Runtime

SERVICE = Path(__file__).parents[2] / "docs/service.py"


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((48, 40)).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture(scope="module")
def port():
    service = Started([sys.executable, SERVICE, "cifar10", "0"])
    try:
        service.wait_until(lambda: "listening" in service.out)
        yield int(service.out.split(":")[-1].strip().strip("/"))
    finally:
        service.close()


def asked(port, method="POST", content=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request(method, "/", content, headers or {})
    reply = connection.getresponse()
    found = reply.status, json.loads(reply.read())
    connection.close()
    return found


def test_many_clients_get_what_predict_answers(port):
    pictures = [jpeg(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda content: asked(port, content=content), pictures))
    wanted = Runtime("cifar10").predict([Image.open(io.BytesIO(content)) for content in pictures])
    assert [status for status, _ in found] == [200] * 8
    for (_, answer), expected in zip(found, wanted, strict=True):
        assert [c["class"] for c in answer["classes"]] == [c["class"] for c in expected["classes"]]
        probabilities = [[c["probability"] for c in one["classes"]] for one in (answer, expected)]
        assert probabilities[0] == pytest.approx(probabilities[1])
    assert len({json.dumps(answer) for _, answer in found}) == 8


def test_it_says_what_it_is_and_keeps_a_connection(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    for _ in range(2):
        connection.request("GET", "/")
        reply = connection.getresponse()
        assert json.loads(reply.read())["task"] == "classification"
        assert not reply.will_close


def test_a_client_that_asks_before_it_sends_is_answered_at_once(port):
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        picture = jpeg(2)
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(picture)}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 100"  # the picture is not sent before
        connection.sendall(picture)
        rest = b""
        while b"classes" not in rest:
            rest += connection.recv(4096)
        assert b"HTTP/1.1 200" in rest


def test_what_follows_an_unread_body_is_no_request(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("GET", "/", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    reply = connection.getresponse()
    assert reply.status == 200 and reply.will_close


def test_what_is_no_picture_is_told_and_the_service_goes_on(port):
    huge = io.BytesIO()
    Image.new("1", (8000, 8000)).save(huge, "PNG")
    for content in (b"no picture", jpeg(0)[:300], b"", huge.getvalue()):
        status, answer = asked(port, content=content)
        assert status == 400 and "no picture" in answer["error"]
    for length, expected in (("99999999999", 413), ("-1", 411), ("a", 411)):
        status, answer = asked(port, headers={"Content-Length": length})
        assert status == expected and "at most" in answer["error"]
    assert asked(port, content=jpeg(1))[0] == 200
