"""A model hub on loopback: as much of its protocol as huggingface_hub speaks when it downloads.

`StandInHub` serves repositories made of bytes and can be told to misbehave. Point a process at it
with HF_ENDPOINT; HF_HUB_DISABLE_XET=1 keeps that process to plain HTTP.
"""

import contextlib
import hashlib
import http.server
import json
import socket
import threading
import urllib.parse
from collections.abc import Mapping


class StandInHub:
    """Repositories by name; a context manager that serves while it is open.

    Attributes:
        endpoint: the URL of the hub.
        requests: (method, path, Range header or None) of every request, in order.
        dropped: file -> how many more times its download breaks off half-way.
        flipped: files that are sent with one byte changed.
        gated: repositories that answer 403.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}  # name, revision, file
        self.requests: list[tuple[str, str, str | None]] = []
        self.dropped: dict[str, int] = {}
        self.flipped: set[str] = set()
        self.gated: set[str] = set()

    def add(self, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Puts files under a revision (a tag, except `main`) and returns its commit."""
        self.repositories.setdefault(name, {"main": {}})[revision] = dict(files)
        return self.commit(name, revision)

    def commit(self, name: str, revision: str) -> str:
        return hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision given by name or commit."""
        for known, files in self.repositories[name].items():
            if revision in (known, self.commit(name, known)):
                return self.commit(name, known), files
        return None

    def __enter__(self) -> "StandInHub":
        self._connections: list[socket.socket] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stops answering: open connections break, further ones are refused."""
        self._server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # already closed
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()


def etag(content: bytes, large: bool) -> str:
    """sha256 for files that the hub keeps as LFS, git's blob hash for the others."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.hub._connections.append(self.connection)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub = self.hub
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        hub.requests.append((self.command, path, self.headers.get("Range")))
        api = path.startswith("api/models/")
        owner, name, kind, *rest = (path.removeprefix("api/models/") + "///").split("/")
        name = f"{owner}/{name}"
        rest = [part for part in rest if part]
        if name not in hub.repositories:
            return self.refuse(401, "RepoNotFound", "Repository not found")
        if name in hub.gated:
            return self.refuse(403, "GatedRepo", "Access to this model is restricted")
        if api and kind == "refs":
            return self.send_json(self.refs(name))
        found = hub.files(name, rest[0] if rest else "main")
        if found is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        commit, files = found
        if api and kind == "tree":
            return self.send_json([self.listed(path, files[path]) for path in sorted(files)])
        if api:
            siblings = [{"rfilename": path} for path in files]
            about = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
            return self.send_json(
                about | {"private": False, "tags": [], "downloads": 0, "likes": 0}
            )
        file = "/".join(rest[1:])
        if kind != "resolve" or file not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        self.send_file(file, files[file], commit)

    def refs(self, name):
        hub = self.hub
        refs = {"branches": [], "tags": [], "converts": []}
        for revision in hub.repositories[name]:
            kind = "branches" if revision == "main" else "tags"
            ref = f"refs/{'heads' if revision == 'main' else 'tags'}/{revision}"
            refs[kind].append(
                {"name": revision, "ref": ref, "targetCommit": hub.commit(name, revision)}
            )
        return refs

    def listed(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": etag(content, False)}
        if is_large(path):
            entry["lfs"] = {"oid": etag(content, True), "size": len(content), "pointerSize": 134}
        return entry

    def send_file(self, file, content, commit):
        hub = self.hub
        tag = etag(content, is_large(file))
        if file in hub.flipped:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.dropped.get(file, 0) > 0:
            hub.dropped[file] -= 1
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(content[start:])

    def send_json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()
