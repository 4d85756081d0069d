"""The verb against a server of its own, which speaks just as much GraphQL as it needs; and without any network."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb

SECTIONS = [
    "Results",
    "Losses",
    "Flip rates",
    "Ranks",
    "α",
    "Activations",
    "Updates",
    "Speed",
    "Pictures",
    "Comparison",
]


class Server:
    """What a W&B server answers, to be changed, and the views that it was given."""

    def __init__(self):
        self.entity, self.projects, self.views = "ann", {("ann", "bnn"), ("team", "bnn")}, []
        self.takes_key, self.may_save, self.broken = True, True, False

    def answer(self, query, variables):
        """(status, body) of one request."""
        if self.broken:
            return 400, {"errors": [{"message": "out of order"}]}
        if not self.takes_key:
            return 401, {"errors": [{"message": "user is not logged in"}]}
        if "upsertView" in query:
            if not self.may_save:
                return 200, {"data": {"upsertView": None}, "errors": [{"message": "permission denied"}]}
            self.views.append(variables)
            view = {"id": "Vmlldzox", "name": variables["name"]}
            return 200, {"data": {"upsertView": {"view": view, "inserted": True}}}
        if "viewer" in query:
            names = {"entity": self.entity, "username": "ann", "name": "Ann", "email": "", "flags": "{}"}
            lists = {"teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False}
            return 200, {"data": {"viewer": {"__typename": "User", "id": "VXNlcjox", **names, **lists}}}
        if "project(" in query:
            entity, name = variables["entity"], variables["name"]
            project = {"__typename": "Project", "id": "UHJv", "name": name, "entityName": entity, "user": None}
            project |= {"createdAt": "2024-01-01T00:00:00Z", "isBenchmark": False}
            return 200, {"data": {"project": project if (entity, name) in self.projects else None}}
        raise AssertionError(query)


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """Somebody who never logged in anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def logged_in(nobody, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setattr("bnnlight.tracking.saved_view.TIMEOUT_S", 3)
    yield
    wandb.teardown()  # ends the process through which wandb speaks to servers


@pytest.fixture
def server(logged_in, monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # wandb sends figures about itself to other paths
            asked = json.loads(body) if self.path == "/graphql" else None
            status, answer = state.answer(asked["query"], asked.get("variables")) if asked else (404, {})
            self._send(status, answer)

        def do_GET(self):
            self._send(404, {})

        def _send(self, status, answer):
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setenv("WANDB_BASE_URL", state.url)
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_saved_view_has_every_section_and_its_address_is_printed(bnnlight, server):
    code, out, err = bnnlight("dashboard", "--project", "bnn", "--name", "nightly")
    assert code == 0, err
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("ann", "bnn", "nightly")
    assert view["type"] == "project-view"
    assert out.startswith(f"{server.url}/ann/bnn?nw=")
    assert out.strip().rsplit("=", 1)[1] in view["name"]
    section = json.loads(view["spec"])["section"]
    banks = section["panelBankConfig"]["sections"]
    assert [bank["name"] for bank in banks] == SECTIONS
    assert all(bank["panels"] for bank in banks)
    assert section["settings"]["xAxis"] == "trainer/global_step"
    # for W&B, a setting that is not "active" does not count
    assert section["settings"]["xAxisActive"]
    pinned = section["runSets"][0]["runFeed"]["columnPinned"]
    assert pinned["config:model.value.init_args.backbone.init_args.latent.init_args.rank"]
    assert pinned["config:seed_everything.value"] and pinned["summary:val/acc1"]
    keys = json.dumps(banks)
    assert '"metricRegex": "^bnn/flip_rate/.+$"' in keys and '"useMetricRegex": true' in keys
    assert '"accessor": "config:model.value.init_args.optimizer.init_args.lr"' in keys


def test_another_entity_may_be_named(bnnlight, server):
    code, out, err = bnnlight("dashboard", "--project", "bnn", "--entity", "team")
    assert code == 0, err
    assert server.views[0]["entityName"] == "team"
    assert f"{server.url}/team/bnn?" in out


def test_entity_of_the_environment_goes_before_the_default_one(bnnlight, server, monkeypatch):
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert bnnlight("dashboard", "--project", "bnn")[0] == 0
    assert server.views[0]["entityName"] == "team"


def test_what_is_saved_is_what_dry_run_shows(bnnlight, server):
    _, out, _ = bnnlight("dashboard", "--project", "bnn", "--dry-run")
    assert server.views == []
    assert bnnlight("dashboard", "--project", "bnn")[0] == 0
    shown = json.loads(out)["sections"]
    saved = json.loads(server.views[0]["spec"])["section"]["panelBankConfig"]["sections"]
    titles = [[panel["config"].get("chartTitle") for panel in section["panels"]] for section in saved]
    assert titles == [[panel.get("title") for panel in section["panels"]] for section in shown]


def test_no_such_project(bnnlight_error, server):
    code, line = bnnlight_error("dashboard", "--project", "nope")
    assert code == 2
    for part in ("ann/nope", server.url, "--project", "--entity"):
        assert part in line
    assert server.views == []


def test_no_entity(bnnlight_error, server):
    server.entity = None
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 2
    assert "--entity" in line


def test_no_permission_to_save(bnnlight_error, server):
    server.may_save = False
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    assert "ann/bnn" in line and "permission denied" in line


def test_a_key_that_the_server_does_not_take(bnnlight_error, server):
    server.takes_key = False
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    assert "wandb login --relogin" in line and "user is not logged in" in line


def test_a_key_that_is_none(bnnlight_error, server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    assert "wandb login --relogin" in line and "WANDB_API_KEY" in line


def test_a_server_with_an_error(bnnlight_error, server):
    server.broken = True
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    assert server.url in line and "out of order" in line
    # the key is not to blame, though wandb takes any failure for that
    assert "relogin" not in line


def test_a_server_out_of_reach(bnnlight_error, logged_in, monkeypatch):
    with socket.socket() as taken:  # bound and never listening: a port at which nobody answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    for part in (url, "out of reach", "Connection refused", "WANDB_BASE_URL"):
        assert part in line


def test_not_logged_in(bnnlight_error, nobody):
    code, line = bnnlight_error("dashboard", "--project", "bnn")
    assert code == 1
    assert "not logged in" in line and "wandb login" in line


def test_dry_run_needs_neither_network_nor_login(bnnlight, nobody, monkeypatch, tmp_path):
    def blocked(*args, **kwargs):
        raise AssertionError("a dry run reached for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)
    first, again = (bnnlight("dashboard", "--project", "bnn", "--dry-run") for _ in range(2))
    code, out, err = first
    assert code == 0, err
    assert err == ""
    # stable, so that two versions can be compared
    assert again == first
    view = json.loads(out)
    assert (view["project"], view["name"]) == ("bnn", "bnnlight")
    assert [section["name"] for section in view["sections"]] == SECTIONS
    assert "α" in out and "null" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["rank 🎉", "α = 1"])
def test_name_that_wandb_does_not_take(bnnlight_error, nobody, name):
    code, line = bnnlight_error("dashboard", "--project", "bnn", "--name", name, "--dry-run")
    assert code == 2
    assert repr(name) in line and "emojis" in line


def test_project_has_to_be_named(bnnlight_error):
    code, line = bnnlight_error("dashboard")
    assert code == 2
    assert "--project" in line


def test_wrong_option(bnnlight_error):
    code, line = bnnlight_error("dashboard", "--projct", "bnn")
    assert code == 2
    assert "--project" in line
