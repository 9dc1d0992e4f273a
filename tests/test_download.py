"""Downloads from a real server on this machine that misbehaves in every way known of the real one."""
from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import h5py
import pytest
from helpers import PATIENCE, start

from ding_cawr.data import d4rl
from ding_cawr.data.load import load_transitions
from ding_cawr.tasks import D4RL_IDS

ENV_ID = 'hopper-medium-v2'
NAME = 'hopper_medium-v2.hdf5'
fork = multiprocessing.get_context('fork')


@pytest.fixture
def server(start_server, make_d4rl_file, tmp_path, cache):
    """A server with a file of some 300 kB; the cache is empty."""
    server = start_server()
    server.content = make_d4rl_file(tmp_path / 'served.hdf5', episodes=[(1000, 'timeout')] * 5).read_bytes()
    return server


@pytest.fixture
def other_content(make_d4rl_file, tmp_path) -> bytes:
    """Another file as long as the one that the server has."""
    return make_d4rl_file(tmp_path / 'other.hdf5', episodes=[(1000, 'timeout')] * 5, seed=1).read_bytes()


def download(server, env_id: str = ENV_ID) -> Path:
    return d4rl.download(env_id, server.url, show_progress=False)


def failure(server) -> str:
    with pytest.raises(ConnectionError) as caught:
        download(server)
    return str(caught.value)


def cut_short(server, cache, after: int = 150_000) -> int:
    """Download, but the connection breaks; the number of bytes in the .part file."""
    server.cut_after = after
    failure(server)
    server.requests.clear()
    return (cache / f'{NAME}.part').stat().st_size


def test_a_file_in_the_cache_that_cannot_be_opened_is_kept(make_d4rl_file, cache, monkeypatch):
    """It is neither deleted nor fetched again: another process writes to it."""
    cache.mkdir()
    path = make_d4rl_file(cache / NAME)
    monkeypatch.setattr(d4rl.requests, 'get', lambda *args, **kwargs: pytest.fail('a request was made'))
    with open(path, 'rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        content = path.read_bytes()
        with pytest.raises(OSError, match='is open for writing in a program'):
            load_transitions(None, ENV_ID)
    assert path.read_bytes() == content and len(load_transitions(None, ENV_ID)) == 58


def test_a_download_is_whole_where_there_are_no_locks(server, cache):
    """The check of its content asks for none: another process may hold one, or the file system have none."""
    cut_short(server, cache)
    with open(cache / f'{NAME}.part', 'rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert download(server).read_bytes() == server.content


def names(folder: Path) -> set[str]:
    """Names of a folder's files; an empty lock may stay."""
    return {path.name for path in folder.iterdir() if path.name != f'{NAME}.lock'}


def check_complete(server, cache) -> None:
    assert (cache / NAME).read_bytes() == server.content
    assert (cache / f'{NAME}.sha256').read_text() == f'{hashlib.sha256(server.content).hexdigest()}  {NAME}\n'
    assert names(cache) == {NAME, f'{NAME}.sha256'}


def wait_until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.01)


def test_file_names_are_those_of_d4rl():
    assert d4rl.file_name('hopper-medium-replay-v2') == 'hopper_medium_replay-v2.hdf5'
    assert d4rl.file_name('walker2d-medium-expert-v2') == 'walker2d_medium_expert-v2.hdf5'
    assert d4rl.file_name('halfcheetah-random-v2') == 'halfcheetah_random-v2.hdf5'
    assert d4rl.file_name('ant-medium-replay-v2') == 'ant_medium_replay-v2.hdf5'
    assert len({d4rl.file_name(env_id) for env_id in D4RL_IDS}) == 20
    assert d4rl.url(ENV_ID) == f'http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/{NAME}'
    assert d4rl.url(ENV_ID, 'https://mirror.org/d4rl/') == f'https://mirror.org/d4rl/{NAME}'


@pytest.mark.parametrize('base_url', ['ftp://mirror.org', 'mirror.org/d4rl', 'file:///tmp', 'http://', ''])
def test_base_url_must_be_http(base_url):
    with pytest.raises(ValueError, match=f'{re.escape(repr(base_url))}.*http://HOST'):
        d4rl.url(ENV_ID, base_url)


def test_unknown_id_is_an_error(cache):
    for function in (d4rl.file_name, d4rl.url, d4rl.cached, d4rl.fetch, d4rl.download):
        with pytest.raises(ValueError, match="hopper-medum-v2.*did you mean 'hopper-medium-v2'"):
            function('hopper-medum-v2')


def test_cache_is_that_of_the_d4rl_package(monkeypatch, tmp_path):
    monkeypatch.setenv('D4RL_DATASET_DIR', str(tmp_path))
    assert d4rl.cache_dir() == tmp_path
    monkeypatch.delenv('D4RL_DATASET_DIR')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert d4rl.cache_dir() == tmp_path / 'home/.d4rl/datasets'
    assert d4rl.cached(ENV_ID) is None
    d4rl.cache_dir().mkdir(parents=True)
    (d4rl.cache_dir() / NAME).touch()
    assert d4rl.cached(ENV_ID) == tmp_path / 'home/.d4rl/datasets' / NAME


def test_download_brings_the_file_and_its_sha256(server, cache):
    assert download(server) == cache / NAME
    check_complete(server, cache)
    assert server.requests == [(f'/{NAME}', None)]
    assert server.headers[0]['Accept-Encoding'] == 'identity'


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(server, cache, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: calls.append(('fsync', os.fstat(fd).st_size)) or fsync(fd))
    monkeypatch.setattr(os, 'replace', lambda old, new: calls.append(('replace', Path(new))) or replace(old, new))
    download(server)
    assert calls == [('fsync', len(server.content)), ('replace', cache / NAME)]


def test_fetch_downloads_once_and_load_transitions_reads_it(server, cache, monkeypatch):
    monkeypatch.setattr(d4rl.download, '__defaults__', (server.url, False))
    assert len(load_transitions(None, ENV_ID)) == 5 * 999
    assert len(load_transitions(None, ENV_ID)) == 5 * 999
    assert len(server.requests) == 1


def test_a_file_in_the_cache_is_left_as_it_is(server, cache):
    cache.mkdir()
    with h5py.File(cache / NAME, 'w') as file:
        file['from elsewhere'] = 1
    content = (cache / NAME).read_bytes()
    assert d4rl.fetch(ENV_ID) == download(server) == cache / NAME
    (cache / NAME).write_bytes(content[:-1])
    assert d4rl.fetch(ENV_ID) == cache / NAME
    with pytest.raises(ValueError, match=f'{NAME}, in the cache, is damaged: .*; delete it, then try again'):
        download(server)
    assert (cache / NAME).read_bytes() == content[:-1] and not server.requests


def test_a_cut_transfer_is_resumed_where_it_stopped(server, cache):
    server.cut_after = 150_000
    message = failure(server)
    part = (cache / f'{NAME}.part').read_bytes()
    assert not (cache / NAME).exists()
    assert 64_000 < len(part) <= 150_000 and part == server.content[:len(part)]
    assert f'{len(part)} bytes are kept in {cache / NAME}.part' in message
    download(server)
    assert server.requests[1:] == [(f'/{NAME}', f'bytes={len(part)}-')]
    assert server.headers[1]['If-Range'] == '"first"'
    check_complete(server, cache)


def test_a_transfer_cut_twice_is_resumed_twice(server, cache):
    first = cut_short(server, cache, 100_000)
    second = cut_short(server, cache, 100_000)
    assert second > first
    download(server)
    assert server.requests == [(f'/{NAME}', f'bytes={second}-')]
    check_complete(server, cache)


def test_a_server_without_ranges_sends_it_all_again(server, cache):
    cut_short(server, cache)
    server.ranges = False
    download(server)
    assert len(server.requests) == 1
    check_complete(server, cache)


@pytest.mark.parametrize('if_range', [True, False], ids=['heeds If-Range', 'ignores If-Range'])
def test_a_file_that_changed_in_between_is_not_mixed(server, cache, other_content, if_range):
    cut_short(server, cache)
    server.content, server.etag, server.if_range = other_content, '"second"', if_range
    download(server)
    check_complete(server, cache)


def test_without_etags_a_change_of_size_is_noticed(server, cache, make_d4rl_file, tmp_path):
    server.etag = None
    cut_short(server, cache)
    server.content = make_d4rl_file(tmp_path / 'longer.hdf5', episodes=[(1000, 'timeout')] * 6).read_bytes()
    download(server)
    assert [requested for _, requested in server.requests][1:] == [None]
    check_complete(server, cache)


def test_a_weak_etag_is_not_sent_as_if_range(server, cache):
    server.etag = 'W/"first"'
    size = cut_short(server, cache)
    download(server)
    assert server.requests == [(f'/{NAME}', f'bytes={size}-')] and 'If-Range' not in server.headers[-1]
    check_complete(server, cache)


def test_a_range_beyond_the_end_starts_afresh(server, cache):
    cut_short(server, cache)
    (cache / f'{NAME}.part').write_bytes(b'x' * len(server.content))
    download(server)
    assert [requested for _, requested in server.requests] == [f'bytes={len(server.content)}-', None]
    check_complete(server, cache)


def test_a_range_from_another_place_is_not_taken(server, cache):
    cut_short(server, cache)
    server.range_shift = 100
    download(server)
    assert [requested for _, requested in server.requests][1:] == [None]
    check_complete(server, cache)


def test_an_answer_with_a_piece_of_the_range_is_gone_on_with(server, cache):
    size = cut_short(server, cache)
    server.range_limit = 50_000
    assert f'ended after {size + 50_000} of {len(server.content)} bytes' in failure(server)
    server.range_limit = None
    download(server)
    assert [requested for _, requested in server.requests] == [f'bytes={size}-', f'bytes={size + 50_000}-']
    check_complete(server, cache)


@pytest.mark.parametrize('record', ['', '{"address": "http', None], ids=['empty', 'cut', 'missing'])
def test_a_part_of_unknown_origin_is_not_trusted(server, cache, record):
    cut_short(server, cache)
    (cache / f'{NAME}.part').write_bytes(b'x' * 1000)
    path = cache / f'{NAME}.part.json'
    path.unlink() if record is None else path.write_text(record)
    download(server)
    assert server.requests == [(f'/{NAME}', None)]
    check_complete(server, cache)


def test_a_part_from_another_mirror_is_not_trusted(server, cache, start_server, other_content):
    cut_short(server, cache)
    mirror = start_server()
    mirror.content = other_content
    download(mirror)
    assert mirror.requests == [(f'/{NAME}', None)]
    check_complete(mirror, cache)


def test_a_length_that_is_too_great_is_a_cut_transfer(server, cache):
    server.claimed_extra = 1000
    assert re.search(r'(1000 more expected|ended after \d+ of \d+ bytes).*bytes are kept', failure(server))
    assert names(cache) == {f'{NAME}.part', f'{NAME}.part.json'}


def test_a_length_that_is_too_small_makes_a_damaged_file(server, cache):
    server.claimed_extra = -1000
    assert 'not an HDF5 file' in failure(server)
    assert names(cache) == set()


def test_a_file_that_is_truncated_on_the_server_is_refused(server, cache):
    server.content = server.content[:-5000]
    assert 'not an HDF5 file' in failure(server)
    assert names(cache) == set()


def test_without_a_length_a_cut_transfer_is_still_noticed(server, cache):
    server.claimed_extra = None
    server.cut_after = 150_000
    assert 'not an HDF5 file' in failure(server)
    assert names(cache) == set()
    download(server)
    check_complete(server, cache)


def test_a_web_page_is_no_dataset(server, cache):
    server.content = b'<html><body>The dataset has moved.</body></html>'
    message = failure(server)
    assert 'not an HDF5 file' in message and '<html><body>The dataset has moved.' in message
    assert names(cache) == set()


@pytest.mark.parametrize('status, reason', [(403, 'Forbidden'), (404, 'Not Found'), (500, 'Internal Server Error')])
def test_an_http_error_says_where_why_and_what_to_do(server, cache, status, reason):
    server.status = status
    message = failure(server)
    assert f'{server.url}/{NAME}: the server answered {status} {reason}.' in message
    assert f'put the file at {cache / NAME} by hand' in message
    assert 'bundled:hopper-medium-expert needs no download' in message
    assert names(cache) == set()


def test_an_http_error_keeps_what_is_there(server, cache):
    size = cut_short(server, cache)
    server.status = 500
    assert f'{size} bytes are kept' in failure(server)
    server.status = None
    download(server)
    assert server.requests[-1] == (f'/{NAME}', f'bytes={size}-')
    check_complete(server, cache)


def test_a_redirect_on_the_same_server_is_followed(server, cache):
    server.redirects = {f'/{NAME}': '/moved/file'}
    size = cut_short(server, cache)
    download(server)
    assert server.requests == [(f'/{NAME}', f'bytes={size}-'), ('/moved/file', f'bytes={size}-')]
    check_complete(server, cache)


def test_a_redirect_to_another_server_is_refused(server, cache, start_server):
    other = start_server()
    other.content = server.content
    server.redirects = {f'/{NAME}': f'{other.url}/{NAME}'}
    assert f'redirects to another server or scheme, {other.url}/{NAME}' in failure(server)
    assert not other.requests and names(cache) == set()


@pytest.mark.parametrize('location', ['https://127.0.0.1:{port}/file', 'http://localhost:{port}/file', 'file:///etc/hosts'])
def test_a_redirect_to_another_scheme_or_host_is_refused(server, cache, location):
    server.redirects = {f'/{NAME}': location.format(port=server.server_port)}
    assert 'redirects to another server or scheme' in failure(server)
    assert len(server.requests) == 1 and names(cache) == set()


def test_a_circle_of_redirects_ends(server, cache):
    server.redirects = {f'/{NAME}': f'/{NAME}'}
    assert 'more than 5 redirects' in failure(server)
    assert len(server.requests) == 6


def test_a_server_that_stalls_is_given_up(server, cache, monkeypatch):
    monkeypatch.setattr(d4rl, 'TIMEOUT', (5.0, 0.2))
    server.wait = 1.0
    assert 'timed out' in failure(server)


def test_no_server_says_where_why_and_what_to_do(cache):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError) as caught:
        try:
            raise KeyError('an error that is being handled')  # and has nothing to do with the reason
        except KeyError:
            d4rl.download(ENV_ID, f'http://127.0.0.1:{port}', show_progress=False)
    message = str(caught.value)
    assert f'http://127.0.0.1:{port}/{NAME}' in message and 'Connection refused' in message
    assert f'put the file at {cache / NAME} by hand' in message and 'bundled:hopper-medium-expert' in message
    assert names(cache) == set()


def test_progress_goes_to_stderr_in_lines_where_it_is_no_terminal(server, cache, capsys):
    d4rl.download(ENV_ID, server.url)
    out, err = capsys.readouterr()
    assert out == '' and err == f'{NAME}: 0.0 of {len(server.content) / 1e6:.1f} MB\n'


def test_progress_is_a_bar_on_a_terminal(server, cache, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    d4rl.download(ENV_ID, server.url)
    out, err = capsys.readouterr()
    assert out == '' and '\r' in err and '100%' in err and NAME in err


def test_no_progress_no_words(server, cache, capsys):
    download(server)
    assert capsys.readouterr() == ('', '')


def download_in_fork(base_url: str, words: Path) -> None:
    """Run by a process of its own: download, with what goes to stderr in the file ``words``."""
    with open(words, 'w', buffering=1) as sys.stderr:
        d4rl.download(ENV_ID, base_url)


def start_download(server, words: Path) -> multiprocessing.Process:
    process = fork.Process(target=download_in_fork, args=(server.url, words), daemon=True)
    process.start()
    return process


def test_processes_at_once_share_one_download(server, cache, tmp_path):
    server.wait = 0.02
    words = [tmp_path / f'words{i}' for i in range(4)]
    processes = [start_download(server, path) for path in words]
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.requests == [(f'/{NAME}', None)]
    waiting = [f'another process is downloading {cache / NAME}; waiting for it' in path.read_text() for path in words]
    assert sorted(waiting) == [False, True, True, True]
    check_complete(server, cache)


def test_one_that_waits_goes_on_when_the_other_dies(server, cache, tmp_path):
    server.wait = 0.1
    part = cache / f'{NAME}.part'
    first = start_download(server, tmp_path / 'first')
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    second = start_download(server, tmp_path / 'second')
    wait_until(lambda: (tmp_path / 'second').exists() and 'waiting' in (tmp_path / 'second').read_text())
    server.wait = 0.0
    os.kill(first.pid, signal.SIGKILL)
    second.join(PATIENCE)
    assert second.exitcode == 0
    assert server.requests[1][1] not in (None, 'bytes=0-')
    check_complete(server, cache)


def test_those_that_wait_take_turns_when_the_first_fails(server, cache, tmp_path):
    server.wait, server.cut_after = 0.05, 150_000
    words = [tmp_path / f'words{i}' for i in range(3)]
    processes = [start_download(server, words[0])]
    wait_until(lambda: server.requests)
    processes.append(start_download(server, words[1]))
    wait_until(lambda: len(server.requests) == 2)
    processes.append(start_download(server, words[2]))
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [1, 0, 0]
    assert ['waiting' in path.read_text() for path in words] == [False, True, True]
    assert len(server.requests) == 2
    check_complete(server, cache)


def test_a_killed_command_is_resumed(server, cache):
    server.wait = 0.1
    process = start('-m', 'ding_cawr', 'data', 'download', ENV_ID, '--mirror', server.url)
    part = cache / f'{NAME}.part'
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    size = part.stat().st_size
    assert 0 < size < len(server.content) and not (cache / NAME).exists()
    server.wait = 0.0
    download(server)
    assert server.requests[1:] == [(f'/{NAME}', f'bytes={size}-')]
    check_complete(server, cache)
