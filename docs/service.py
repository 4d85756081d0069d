"""A small service with the standard library: a picture in by POST, its answer out as JSON.

python service.py MODEL [PORT]
curl --data-binary @photo.jpg http://127.0.0.1:8080/
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from bnnlight.deploy import Runtime

MOST_BYTES, MOST_PIXELS = 20_000_000, 50_000_000


def make_service(runtime: Runtime, host: str, port: int) -> ThreadingHTTPServer:
    """A server with a thread for each connection; all of them share one runtime."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a client keeps its connection
        wbufsize = -1  # head and body leave together: apart, the second waits 40 ms for an acknowledgement
        timeout = 60  # seconds that a silent connection is kept

        def handle_expect_100(self) -> bool:
            go_on = super().handle_expect_100()
            self.wfile.flush()  # a client that asks whether to send its picture waits for this
            return go_on

        def do_GET(self) -> None:
            # a body is not read, and must not be taken for the next request
            self.close_connection |= "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
            self._send(200, {"network": runtime.manifest.network, "task": runtime.manifest.task})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or "Transfer-Encoding" in self.headers or int(length) > MOST_BYTES:
                self.close_connection = True  # what follows is not read
                status = 413 if length.isdecimal() else 411
                self._send(status, {"error": f"send a picture of at most {MOST_BYTES} bytes, with its Content-Length"})
                return
            try:
                picture = Image.open(io.BytesIO(self.rfile.read(int(length))))
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError("too many pixels")
                picture.load()
            except Exception as error:  # decoders raise errors of many kinds
                self._send(400, {"error": f"no picture that can be read: {type(error).__name__}"})
                return
            self._send(200, runtime.predict([picture])[0])

        def _send(self, status: int, answer: dict) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing of each request."""

    class Service(ThreadingHTTPServer):
        request_queue_size = 128  # connections that may wait to be taken; the default of 5 turns a crowd away

    return Service((host, port), Handler)


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    service = make_service(Runtime(sys.argv[1]), "127.0.0.1", port)
    print(f"listening on http://127.0.0.1:{service.server_port}/", flush=True)
    service.serve_forever()
