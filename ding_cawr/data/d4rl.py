"""Downloading D4RL's files from their server into the cache."""
from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import filelock
import h5py
import requests
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from ding_cawr.files import existing_file, sha256, writing
from ding_cawr.tasks import split_d4rl_id

BASE_URL = 'http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2'
TIMEOUT = (10.0, 60.0)  # seconds: to connect, and between two pieces of an answer
CHUNK = 1 << 16  # bytes
LINE_INTERVAL = 15.0  # seconds between two lines of progress where stderr is not a terminal
MAX_REDIRECTS = 5


def file_name(env_id: str) -> str:
    """Return the name of a dataset's file, such as ``hopper_medium_replay-v2.hdf5``.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id.
    """
    task, quality = split_d4rl_id(env_id)
    return f'{task.name}_{quality.replace("-", "_")}-v2.hdf5'


def url(env_id: str, base_url: str = BASE_URL) -> str:
    """Return the address of a dataset's file below ``base_url``, a folder with D4RL's file names.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id, or ``base_url`` is not an http or https address.
    """
    if urlsplit(base_url).scheme not in ('http', 'https') or not urlsplit(base_url).netloc:
        raise ValueError(f'the base URL is {base_url!r}; it must begin with http://HOST or https://HOST')
    return f'{base_url.rstrip("/")}/{file_name(env_id)}'


def cache_dir() -> Path:
    """Return ``$D4RL_DATASET_DIR``, else ``~/.d4rl/datasets``, the cache of the d4rl package."""
    return Path(os.environ.get('D4RL_DATASET_DIR') or '~/.d4rl/datasets').expanduser()


def cached(env_id: str) -> Path | None:
    """Return the file of a dataset in the cache, None where it is not there.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id.
    """
    path = cache_dir() / file_name(env_id)
    return path if path.is_file() else None


def fetch(env_id: str) -> Path:
    """Return the file of a dataset, downloaded if it is not in the cache; raise what ``download`` raises."""
    return cached(env_id) or download(env_id)


def download(env_id: str, base_url: str = BASE_URL, show_progress: bool = True) -> Path:
    """Download a dataset into the cache and record its SHA-256 beside it, in ``sha256sum``'s format.

    The bytes go to a .part file first, and an attempt that was cut short is continued. The file gets its name once it
    is complete and opens as HDF5. A file that is in the cache is left as it is. If another process is downloading the
    file, this one waits for it.

    Arguments:
        env_id: a D4RL locomotion id.
        base_url: folder with D4RL's file names, for a mirror.
        show_progress: report on stderr.

    Returns:
        The file in the cache.

    Raises:
        ValueError: ``env_id`` is not a D4RL locomotion id, ``base_url`` is not an http or https address, or the file in
            the cache is damaged.
        ConnectionError: no network, an HTTP error, a cut transfer, or something else than an HDF5 file; the message
            names the address, the reason and where to put the file by hand.
        OSError: the cache cannot be written.
    """
    target = cache_dir() / file_name(env_id)
    address = url(env_id, base_url)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target, show_progress):
            if not target.is_file():
                with writing(target):
                    _Transfer(address, target, show_progress).run()
        return target
    existing_file(target, 'dataset file')  # which names one that may not be read as that
    try:
        _try_to_open(target)
    except OSError as error:
        raise ValueError(f'{target}, in the cache, is damaged: {error}; delete it, then try again') from error
    return target


def _try_to_open(path: Path) -> None:
    """Raise an OSError for a file that h5py does not open."""
    h5py.File(path, 'r', locking=False).close()  # not every file system has locks


def _lock(target: Path, show_progress: bool) -> AbstractContextManager:
    """Acquire the lock with which one process at a time downloads ``target``; it is released when the process ends."""
    lock = filelock.FileLock(_beside(target, '.lock'))
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        if show_progress:
            print(f'another process is downloading {target}; waiting for it', file=sys.stderr)
        return lock.acquire()


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
            with self._open() as response, open(self.part, 'ab') as file:
                total = self._recorded()['total']
                chunks = response.iter_content(CHUNK)
                file.writelines(_reported(chunks, self.target.name, self._size(), total, self.show_progress))
                file.flush()
                os.fsync(file.fileno())
        except requests.RequestException as error:
            raise self._failure(_reason(error)) from error
        if total is not None and self._size() != total:
            raise self._failure(f'the transfer ended after {self._size()} of {total} bytes')
        self._check_content()
        _beside(self.target, '.sha256').write_text(f'{sha256(self.part)}  {self.target.name}\n', encoding='utf-8')
        os.replace(self.part, self.target)
        self.record.unlink()

    def _open(self) -> requests.Response:
        """Return the answer whose body belongs at the end of the .part file, which is emptied if it cannot go on."""
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
        self.record.write_text(json.dumps(_version(self.address, response)), encoding='utf-8')
        return response

    def _resume_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest of the .part file; none where it is of another address."""
        version = self._recorded()
        size = self._size()
        if not size or not version.get('total') or version.get('address') != self.address:
            return {}
        headers = {'Range': f'bytes={size}-'}
        return {**headers, 'If-Range': version['validator']} if version['validator'] else headers

    def _continues(self, response: requests.Response) -> bool:
        """Return whether the answer is the rest of the .part file's version; not every server heeds If-Range."""
        version, span = self._recorded(), response.headers.get('Content-Range', '')
        same = _version(self.address, response)['validator'] in (None, version['validator'])
        return same and span.startswith(f'bytes {self._size()}-') and span.endswith(f'/{version["total"]}')

    def _get(self, headers: dict[str, str]) -> requests.Response:
        """Return the answer to a GET request. Redirects are followed on the same server only."""
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

    def _check_content(self) -> None:
        """Delete what h5py does not open, which no later attempt could continue, and raise a ConnectionError."""
        try:
            _try_to_open(self.part)
        except PermissionError as error:
            raise self._failure(f'{self.part} may not be read: permission denied') from error
        except OSError as error:
            with open(self.part, 'rb') as file:
                reason = f'the server sent {self._size()} bytes that are not an HDF5 file: {error}; they begin with ' \
                    f'{file.read(64)!r}'
            self.part.unlink()
            self.record.unlink()
            raise self._failure(reason) from error

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _recorded(self) -> dict:
        """Return the version that the .part file is of; empty where the record is missing or was cut short."""
        try:
            return json.loads(self.record.read_text(encoding='utf-8'))
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
    """Return what tells one version of a file from another: address, length and, if the server gives one, a validator.

    A weak ETag is not used: it does not promise the same bytes.
    """
    length, etag = response.headers.get('Content-Length', ''), response.headers.get('ETag', 'W/')
    validator = response.headers.get('Last-Modified') if etag.startswith('W/') else etag
    return {'address': address, 'total': int(length) if length.isdecimal() else None, 'validator': validator}


def _reason(error: BaseException) -> str:
    """Return the message of the innermost error, without those of the libraries around it."""
    while True:
        inner = getattr(error, 'reason', None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return ', '.join(part for part in error.args if isinstance(part, str)) or repr(error)
        error = inner


def _reported(
    chunks: Iterable[bytes], name: str, done: int, total: int | None, show_progress: bool
) -> Iterator[bytes]:
    """Pass ``chunks`` on and report on stderr: a bar on a terminal, elsewhere a line now and then."""
    has_bar = show_progress and sys.stderr.isatty()
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    whole, last_line = 'an unknown number of' if total is None else f'{total / 1e6:.1f}', -math.inf
    with Progress(*columns, console=Console(stderr=True)) if has_bar else contextlib.nullcontext() as bar:
        task = bar and bar.add_task(name, total=total, completed=done)
        for chunk in chunks:
            if show_progress and not has_bar and time.monotonic() - last_line > LINE_INTERVAL:
                print(f'{name}: {done / 1e6:.1f} of {whole} MB', file=sys.stderr)
                last_line = time.monotonic()
            yield chunk
            done += len(chunk)
            if bar:
                bar.advance(task, len(chunk))
