"""A server in this process that speaks as much of W&B's protocol as logging, resuming and syncing need."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


@dataclass
class ServerRun:
    """What the server knows of one run; `repeated` are the lines that were sent again, with another content or not."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines in order, without W&B's own keys; there must be no gap."""
        assert sorted(self.lines) == list(range(len(self.lines)))
        return [own(self.lines[index]) for index in range(len(self.lines))]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration without W&B's own keys."""
        return {key: one["value"] for key, one in json.loads(self.about["config"]).items() if key != "_wandb"}


def own(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a history, or a summary, without W&B's own keys."""
    return {key: value for key, value in line.items() if not key.startswith("_")}


class Server:
    """The state of all runs by id, the names of requests, and how to reach it."""

    def __init__(self) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.requests: list[str] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.port = 0

    def variables(self) -> dict[str, str]:
        """What a process needs in its environment to log here."""
        quickly = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.2"}  # seconds, 15 otherwise
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.port}", "WANDB_API_KEY": KEY, **quickly}

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Answer one request."""
        with self.lock:
            if path.startswith("/graphql"):
                return {"data": self._graphql(json.loads(body))}
            stream = re.match(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
            if stream:
                self._stream(self.runs.setdefault(stream[3], ServerRun()), json.loads(body or b"{}"))
                return {"exitcode": None, "limits": {}}
            return {}

    def _stream(self, run: ServerRun, sent: dict[str, Any]) -> None:
        for name, file in (sent.get("files") or {}).items():
            for index, line in enumerate(file["content"], file.get("offset", 0)):
                if name.endswith("history.jsonl"):
                    run.repeated += [index] if index in run.lines else []
                    run.lines[index] = json.loads(line)
                elif name.endswith("summary.json"):
                    run.summary = json.loads(line)
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")

    def _view(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Saved views by id; those of a project without runs cannot be asked for."""
        if "allViews" in query:
            known = variables["project"] in {run.about.get("project") for run in self.runs.values()}
            found = [{"node": {"id": id}} for id, one in self.views.items() if one["name"] == variables["name"]]
            return {"project": {"allViews": {"edges": found}} if known else None}
        id = variables.get("id") or f"V{len(self.views)}"
        self.views[id] = variables
        return {"upsertView": {"view": {"id": id, "name": variables["name"]}, "inserted": "id" not in variables}}

    def _graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, variables = asked.get("query", ""), asked.get("variables") or {}
        self.requests.append(
            asked.get("operationName") or (re.findall(r"(?:query|mutation)\s+(\w+)", query) or ["?"])[0]
        )
        if "__type" in query or "__schema" in query:
            empty = {"name": "X", "fields": [], "inputFields": []}
            kinds = ("TypeInfo", "__type", "QueryType", "MutationType", "ServerInfoType")
            return dict.fromkeys(kinds, empty)
        info = {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None, "features": []}
        if "viewer" in query:
            me = {"id": "U1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": {**me, "apiKeys": {"edges": []}}, "serverInfo": info}
        if "serverInfo" in query:
            return {"serverInfo": info}
        if "upsertView" in query or "allViews" in query:
            return self._view(query, variables)
        name = variables.get("name") or variables.get("run") or variables.get("id")
        if "upsertBucket" in query:
            inserted = name not in self.runs
            run = self.runs.setdefault(name, ServerRun())
            run.about |= {key: value for key, value in variables.items() if value is not None}
            return {"upsertBucket": {"bucket": _bucket(name, run), "inserted": inserted}}
        if "bucket(name" in query or "RunResumeStatus" in self.requests[-1]:
            bucket = _bucket(name, self.runs[name]) if name in self.runs else None
            return {
                "model": {
                    "id": "P1",
                    "name": variables.get("project"),
                    "entity": {"id": "E1", "name": "me"},
                    "bucket": bucket,
                }
            }
        if "createRunFiles" in query:
            files = [{"name": file, "uploadUrl": f"http://127.0.0.1:{self.port}/up"} for file in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        return {"project": {"run": {"stopped": False}}} if "RunStoppedStatus" in self.requests[-1] else {}


def _bucket(name: str, run: ServerRun) -> dict[str, Any]:
    lines = [json.dumps(run.lines[index]) for index in sorted(run.lines)]
    about, when = run.about, "2026-01-01T00:00:00Z"
    return {
        "id": f"R{name}",
        "name": name,
        "displayName": about.get("displayName") or name,
        "sweepName": None,
        "config": about.get("config") or "{}",
        "historyLineCount": len(lines),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "historyTail": json.dumps(lines[-1:]),
        "eventsTail": "[]",
        "summaryMetrics": json.dumps(run.summary),
        "tags": about.get("tags") or [],
        **dict.fromkeys(("createdAt", "updatedAt", "heartbeatAt"), when),
        "project": {"id": "P1", "name": about.get("project"), "entity": {"id": "E1", "name": "me"}},
        "historyKeys": {"lastStep": len(lines) - 1, "keys": {}},
        "files": {"edges": []},
        "wandbConfig": '{"t": {}}',
        "stopped": False,
        "state": "running",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        self._reply(self.state.answer(self.path, self._body()))


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that are killed, or leave early."""


@contextmanager
def serving(server: Server, port: int = 0) -> Iterator[Server]:
    """Let a server answer during a block."""
    handler = type("Handler", (_Handler,), {"state": server})
    http = _Http(("127.0.0.1", port), handler)
    server.port = http.server_address[1]
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
