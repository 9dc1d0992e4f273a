"""Where D4RL's files live: the server, the cache, and the way from one to the other."""
from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import h5py
import requests
from tqdm import tqdm

from ding_cawr.tasks import split_d4rl_id

BASE_URL = 'http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2'
HDF5_SIGNATURE = b'\x89HDF\r\n\x1a\n'
TIMEOUT = (10.0, 60.0)  # seconds: to connect, and between two pieces of an answer
CHUNK = 1 << 16  # bytes
LINE_INTERVAL = 15.0  # seconds between two lines of progress where stderr is no terminal
MAX_REDIRECTS = 5


def file_name(env_id: str) -> str:
    """Name of a dataset's file, D4RL's own: ``hopper-medium-replay-v2`` is in ``hopper_medium_replay-v2.hdf5``.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id.
    """
    task, quality = split_d4rl_id(env_id)
    return f'{task.name}_{quality.replace("-", "_")}-v2.hdf5'


def url(env_id: str, base_url: str = BASE_URL) -> str:
    """Address of a dataset's file below ``base_url``, a folder with D4RL's file names.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id, or ``base_url`` is no http or https address.
    """
    if urlsplit(base_url).scheme not in ('http', 'https') or not urlsplit(base_url).netloc:
        raise ValueError(f'base URL {base_url!r} is not allowed: it must begin with http://HOST or https://HOST')
    return f'{base_url.rstrip("/")}/{file_name(env_id)}'


def cache_dir() -> Path:
    """``$D4RL_DATASET_DIR``, else ``~/.d4rl/datasets``: the d4rl package's own cache, so its files are found."""
    return Path(os.environ.get('D4RL_DATASET_DIR') or '~/.d4rl/datasets').expanduser()


def cached(env_id: str) -> Path | None:
    """File of a dataset in the cache, None where it is not there.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id.
    """
    path = cache_dir() / file_name(env_id)
    return path if path.is_file() else None


def fetch(env_id: str) -> Path:
    """File of a dataset: the cached one, else downloaded; raises what ``download`` raises."""
    return cached(env_id) or download(env_id)


def download(env_id: str, base_url: str = BASE_URL, show_progress: bool = True) -> Path:
    """Download a dataset into the cache and record its SHA-256 beside it, in ``sha256sum``'s format.

    The bytes go to a .part file first; an attempt that was cut short is gone on with. The file gets its name once it is
    complete and opens as HDF5. A file already in the cache is left as it is, and so is one that another process brings
    there in the meantime: this one waits for it.

    Arguments:
        env_id: a D4RL locomotion id.
        base_url: folder with D4RL's file names, for a mirror.
        show_progress: report on stderr.

    Returns:
        The file in the cache.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id, or ``base_url`` is no http or https address.
        ConnectionError: no network, an HTTP error, a cut transfer, or something else than an HDF5 file; the message
            names the address, the reason and where to put the file by hand.
        OSError: the cache cannot be written.
    """
    target = cache_dir() / file_name(env_id)
    address = url(env_id, base_url)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(target, show_progress):
            if not target.is_file():
                _Transfer(address, target, show_progress).run()
    return target


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _turn(target: Path, show_progress: bool) -> Iterator[None]:
    """One process at a time downloads ``target``; the kernel frees the lock of one that dies."""
    import fcntl  # POSIX only, and the rest of the package works without it

    path = _beside(target, '.lock')
    while True:
        with open(path, 'a') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if show_progress:
                    print(f'another process is downloading {target}; waiting for it', file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_open_file(lock, path):  # the holder before has deleted it: a lock that nobody else would meet
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_open_file(file: IO, path: Path) -> bool:
    """Whether ``path`` still names the open ``file``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


@dataclass(frozen=True)
class _Transfer:
    """One file on its way from ``address`` to ``target``.

    Its bytes are in the .part file; the .part.json file says of which version of the file they are.
    """
    address: str
    target: Path
    show_progress: bool

    @property
    def part(self) -> Path:
        return _beside(self.target, '.part')

    @property
    def record(self) -> Path:
        return _beside(self.target, '.part.json')

    def run(self) -> None:
        try:
            with self._open() as response:
                self._receive(response)
        except requests.RequestException as error:
            raise self._failure(_reason(error)) from error
        self._check_size()
        self._check_content()
        _beside(self.target, '.sha256').write_text(f'{sha256(self.part)}  {self.target.name}\n')
        os.replace(self.part, self.target)
        self.record.unlink()

    def _open(self) -> requests.Response:
        """The answer whose body belongs at the end of the .part file, which is emptied if it cannot be gone on with."""
        headers = self._resume_headers()
        response = self._get(headers)
        if headers and response.status_code == 206 and self._continues(response):
            return response
        if headers and response.status_code in (206, 416):
            response.close()
            response = self._get({})
        if response.status_code != 200:
            response.close()
            raise self._failure(f'the server answered {response.status_code} {response.reason}')
        self.part.write_bytes(b'')
        self.record.write_text(json.dumps(_version(self.address, response)))
        return response

    def _resume_headers(self) -> dict[str, str]:
        """The request for the rest of the .part file; empty where there is none, or it is of another address."""
        version = self._recorded()
        size = self._size()
        if not size or not version.get('total') or version.get('address') != self.address:
            return {}
        headers = {'Range': f'bytes={size}-'}
        return {**headers, 'If-Range': version['validator']} if version['validator'] else headers

    def _continues(self, response: requests.Response) -> bool:
        """Whether the answer is the rest of the version that the .part file is of; not every server heeds If-Range."""
        version, span = self._recorded(), response.headers.get('Content-Range', '')
        same = _version(self.address, response)['validator'] in (None, version['validator'])
        return same and span.startswith(f'bytes {self._size()}-') and span.endswith(f'/{version["total"]}')

    def _get(self, headers: dict[str, str]) -> requests.Response:
        """Answer to a GET request. Redirects are followed on the same server only: elsewhere could be anything."""
        address = self.address
        for _ in range(MAX_REDIRECTS + 1):
            # Not compressed: sizes and ranges are then those of the file.
            response = requests.get(
                address, headers={'Accept-Encoding': 'identity', **headers}, stream=True, timeout=TIMEOUT,
                allow_redirects=False
            )
            if not response.is_redirect:
                return response
            response.close()
            following = urljoin(address, response.headers['Location'])
            if urlsplit(following)[:2] != urlsplit(address)[:2]:
                raise self._failure(f'it redirects to another server or scheme, {following}, and that is not followed')
            address = following
        raise self._failure(f'more than {MAX_REDIRECTS} redirects')

    def _receive(self, response: requests.Response) -> None:
        chunks = response.iter_content(CHUNK)
        with open(self.part, 'ab') as file:
            file.writelines(
                _reported(chunks, self.target.name, self._size(), self._recorded()['total'], self.show_progress)
            )
            file.flush()
            os.fsync(file.fileno())

    def _check_size(self) -> None:
        size, total = self._size(), self._recorded()['total']
        if total is not None and size != total:
            raise self._failure(f'the transfer ended after {size} of {total} bytes')

    def _check_content(self) -> None:
        """A complete answer that is no HDF5 file, or a truncated one, is worth nothing to a later attempt."""
        with open(self.part, 'rb') as file:
            start = file.read(64)
            if not start.startswith(HDF5_SIGNATURE):
                reason = f'the server sent no HDF5 file, but {self._size()} bytes that begin with {start!r}'
            else:
                try:
                    h5py.File(file, 'r').close()
                    return
                except OSError as error:
                    reason = f'the server sent a damaged HDF5 file: {error}'
        self.part.unlink()
        self.record.unlink()
        raise self._failure(reason)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _recorded(self) -> dict:
        """Version of the file that the .part file is of; empty where the record is missing or was cut short."""
        try:
            return json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def _failure(self, reason) -> ConnectionError:
        size = self._size() if self._recorded().get('total') else 0
        kept = f' {size} bytes are kept in {self.part}, for the next attempt to go on with.' if size else ''
        return ConnectionError(
            f'cannot download {self.address}: {reason}.{kept} Try again, give a mirror (base_url, --mirror) or put '
            f'the file at {self.target} by hand; bundled:hopper-medium-expert needs no download'
        )


def _version(address: str, response: requests.Response) -> dict:
    """What tells one version of a file from another: its address, its length and, if the server gives one, a validator.
    A weak ETag does not promise the same bytes, so If-Range does not allow it."""
    length, etag = response.headers.get('Content-Length', ''), response.headers.get('ETag', 'W/')
    validator = response.headers.get('Last-Modified') if etag.startswith('W/') else etag
    return {'address': address, 'total': int(length) if length.isdecimal() else None, 'validator': validator}


def _reason(error: BaseException) -> str:
    """The words of the innermost error, without those of the libraries around it."""
    while True:
        inner = getattr(error, 'reason', None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return ', '.join(part for part in error.args if isinstance(part, str)) or repr(error)
        error = inner


def _reported(
    chunks: Iterable[bytes], name: str, done: int, total: int | None, show_progress: bool
) -> Iterator[bytes]:
    """Pass ``chunks`` on and report on stderr: a bar on a terminal, elsewhere a line now and then."""
    terminal = sys.stderr.isatty()
    whole = 'an unknown number of' if total is None else f'{total / 1e6:.1f}'
    last_line = -float('inf')
    with tqdm(
        desc=name, initial=done, total=total, unit='B', unit_scale=True, disable=not (show_progress and terminal)
    ) as bar:
        for chunk in chunks:
            if show_progress and not terminal and time.monotonic() - last_line > LINE_INTERVAL:
                print(f'{name}: {done / 1e6:.1f} of {whole} MB', file=sys.stderr)
                last_line = time.monotonic()
            yield chunk
            done += len(chunk)
            bar.update(len(chunk))
