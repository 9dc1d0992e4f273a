"""Fixtures that several test files share."""
from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest


def write_d4rl_file(
    path: Path, episodes=((20, 'terminal'), (30, 'timeout'), (10, 'open')), obs_shape: int = 11, action_shape: int = 3,
    seed: int = 0, attributes: dict | None = None,
) -> Path:
    """Write random data in D4RL's layout, hopper's unless told otherwise.

    Arguments:
        path: HDF5 file to write; its folder must exist.
        episodes: (rows, end) of each episode, where end is 'terminal', 'timeout' or 'open' (the file ends before the
            episode does).
        obs_shape, action_shape: widths. The first entry of an observation is in [0.8, 1.5], actions are in [-1, 1].
        attributes: HDF5 attributes of the file.
    """
    generator = np.random.default_rng(seed)
    rows = sum(length for length, _ in episodes)
    obs = generator.normal(size=(rows, obs_shape)).astype(np.float32)
    obs[:, 0] = generator.uniform(0.8, 1.5, rows)
    last = np.cumsum([length for length, _ in episodes]) - 1
    flags = {end: np.zeros(rows, bool) for end in ('terminal', 'timeout', 'open')}
    for row, (_, end) in zip(last, episodes):
        flags[end][row] = True
    with h5py.File(path, 'w') as file:
        file['observations'] = obs
        file['actions'] = generator.uniform(-1, 1, (rows, action_shape)).astype(np.float32)
        file['rewards'] = generator.uniform(0, 4, rows).astype(np.float32)
        file['terminals'] = flags['terminal']
        file['timeouts'] = flags['timeout']
        file.attrs.update(attributes or {})
    return path


@pytest.fixture
def make_d4rl_file():
    """``make_d4rl_file(path, episodes=..., obs_shape=11, action_shape=3, seed=0, attributes=None) -> path``."""
    return write_d4rl_file


class FileServer(ThreadingHTTPServer):
    """Serves ``content`` at every path on 127.0.0.1, with the faults that its attributes ask for."""
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), FileRequest)
        self.requests: list[tuple[str, str | None]] = []  # (path, Range header) of every request
        self.headers: list = []  # all headers of every request
        self.content = b''
        self.etag: str | None = '"first"'
        self.status: int | None = None  # answer so instead of serving
        self.redirects: dict[str, str] = {}  # path -> Location
        self.cut_after: int | None = None  # bytes of the next answer's body, then the connection is closed
        self.claimed_extra: int | None = 0  # bytes that Content-Length claims too many; None: no Content-Length
        self.ranges = True  # heed Range
        self.if_range = True  # heed If-Range
        self.range_shift = 0  # answer a range from so many bytes before its start
        self.range_limit: int | None = None  # answer at most so many bytes of a range
        self.wait = 0.0  # seconds between two pieces of 16 KiB
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no error of the server."""


class FileRequest(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers['Range']))
        self.server.headers.append(self.headers)
        if self.path in self.server.redirects:
            return self.answer(302, b'', Location=self.server.redirects[self.path])
        if self.server.status:
            return self.answer(self.server.status, b'<html>error</html>')
        content, span = self.server.content, re.fullmatch(r'bytes=(\d+)-', self.headers['Range'] or '')
        changed = self.server.if_range and self.headers['If-Range'] not in (None, self.server.etag)
        if not span or changed or not self.server.ranges:
            return self.answer(200, content)
        start = int(span[1]) - self.server.range_shift
        if start >= len(content):
            return self.answer(416, b'')
        body = content[start:][:self.server.range_limit]
        self.answer(206, body, **{'Content-Range': f'bytes {start}-{start + len(body) - 1}/{len(content)}'})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        server = self.server
        self.send_response(status)
        if server.claimed_extra is not None:
            self.send_header('Content-Length', str(len(body) + server.claimed_extra))
        if server.etag:
            self.send_header('ETag', server.etag)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            body, server.cut_after = body[:server.cut_after], None
        for start in range(0, len(body), 1 << 14):
            self.wfile.write(body[start:start + (1 << 14)])
            time.sleep(server.wait)

    def log_message(self, *args) -> None:
        """Quiet."""


@pytest.fixture
def start_server(monkeypatch):
    """``start_server() -> FileServer``, stopped after the test."""
    monkeypatch.setenv('no_proxy', '127.0.0.1,localhost')
    servers = []

    def start() -> FileServer:
        servers.append(FileServer())
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty D4RL cache, which $D4RL_DATASET_DIR names."""
    monkeypatch.setenv('D4RL_DATASET_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def as_if_recorded(monkeypatch) -> list:
    """Iterations are replayed as on a GPU, by ``trainings.recorded``; gives the replays that were made."""
    from trainings import recorded

    from ding_cawr.networks.graph import Replay
    made = []

    def replay(*arguments) -> Replay:
        made.append(Replay(*arguments, recorded))
        return made[-1]

    monkeypatch.setattr('ding_cawr.training.loop.Replay', replay)
    return made
