import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb

from bnnlight.tracking import WandbRun

_WRITE = """
import json, os, signal, sys
from bnnlight.tracking import WandbRun
run_dir, rows, options, end = sys.argv[1], *map(json.loads, sys.argv[2:])
logger = WandbRun(run_dir, **options)
for step, row in rows:
    logger.log_metrics(row, step)
    if end == "core killed" and step == 0 or end == "killed" and step == rows[-1][0]:
        # W&B's own process is the only child of this one
        (core,) = map(int, open(f"/proc/self/task/{os.getpid()}/children").read().split())
        os.kill(core, signal.SIGKILL)
        os.waitpid(core, 0)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
logger.finish()
"""


@pytest.fixture
def write_offline(monkeypatch, capsys):
    """Log rows [(step, {key: value})] with a WandbRun; return what it printed on stderr.

    end: finished, or in a process of its own killed together with W&B's own process, or core killed (that one alone,
    after the first row).
    """

    def write(run_dir, rows, end="finished", env=(), **options):
        run_dir.mkdir(exist_ok=True, parents=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        env = {**clean, "WANDB_MODE": "offline", "WANDB_SILENT": "true", **dict(env)}
        if end != "finished":
            arguments = [str(run_dir), *map(json.dumps, (rows, options, end))]
            done = subprocess.run(
                [sys.executable, "-c", _WRITE, *arguments], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == (-9 if end == "killed" else 0), done.stderr
            return done.stderr
        wandb.teardown()  # which has read its environment already
        with monkeypatch.context() as patch:
            for name in os.environ.keys() - env.keys():
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            logger = WandbRun(str(run_dir), **options)
            logger.log_hyperparams({"lr": 0.1, "nested": {"rank": 2}})
            for step, row in rows:
                logger.log_metrics(row, step)
            logger.finish()
            wandb.teardown()
        return capsys.readouterr().err

    return write


@pytest.fixture
def vanishing_server():
    """A W&B server that lets a run begin and then is gone; the address."""
    answers = {
        "viewer": {"viewer": {"id": "U", "entity": "ann", "username": "ann", "flags": "{}", "teams": {"edges": []}}},
        "upsertBucket": None,
        "model": {"model": None},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = json.loads(body) if self.path == "/graphql" else {"query": "", "variables": {}}
            data = next((found for word, found in answers.items() if word in asked["query"]), {})
            if data is None:
                project = {"id": "P", "name": "bnnlight", "entity": {"id": "E", "name": "ann"}}
                bucket = {"id": "R", "name": asked["variables"]["name"], "config": "{}", "project": project}
                data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
            text = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            if "upsertBucket" in data:  # the last that a run waits for
                self.server.socket.close()
                threading.Thread(target=self.server.shutdown).start()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
