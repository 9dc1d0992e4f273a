"""Commands that start quickly: forks of a process that has imported torch and DI-engine once, but not this package.

    process = Process(['-m', 'ding_cawr', 'resume', 'run'], folder, environment)
    process.wait()

The words are those of Python's own command line: ``-m MODULE ...``, ``-c CODE ...`` or ``SCRIPT ...``. A fork has its
own arguments, folder, environment, output, signals and exit code, imports ``ding_cawr`` itself, and ends as a Python
process does. Two things differ from a new process: all forks of a server hash strings with the same seed, and what
DI-engine prints at its import is missing. tests/test_executables.py compares a fork with the real command.
"""
from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

#: Modules that a fork finds imported. mujoco is not one: at its import it reads MUJOCO_GL.
PRELOADED = (
    'torch', 'ding.entry.cli', 'gymnasium', 'h5py', 'pandas', 'matplotlib.figure', 'matplotlib.backends.backend_agg',
    'requests', 'rich.progress',
)
NUMBER = struct.Struct('q')


class Process:
    """A command in a fork, with those methods of ``subprocess.Popen`` that the tests use.

    Arguments:
        words: Python's command line, after ``python``.
        cwd, environment: folder and all variables of the process.
        output: file descriptor of its stdout and stderr; None keeps them for ``communicate``.
    """

    def __init__(
        self, words: Sequence[object], cwd: Path, environment: dict[str, str], output: int | None = None
    ) -> None:
        self.args, self.returncode = [str(word) for word in words], None
        self._files = [tempfile.TemporaryFile('w+', errors='replace') for _ in range(2)]
        request = json.dumps([self.args, str(cwd), environment]).encode()
        self._connection, theirs = socket.socketpair()
        with theirs:
            outputs = [file.fileno() if output is None else output for file in self._files]
            socket.send_fds(server(), [b'.'], [theirs.fileno(), *outputs])
        self._connection.sendall(NUMBER.pack(len(request)) + request)
        self.pid = self._receive(None)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            self.returncode = self._receive(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; that of a process that a signal ended is the signal's number, negative."""
        if self.returncode is None:
            self.returncode = self._receive(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was written to stdout and to stderr."""
        self.wait(timeout)
        for file in self._files:
            file.seek(0)
        stdout, stderr = (file.read() for file in self._files)
        return stdout, stderr

    def _receive(self, timeout: float | None) -> int | None:
        """Return the watcher's next number, or None if none comes in time."""
        self._connection.settimeout(timeout)
        try:
            return NUMBER.unpack(self._connection.recv(NUMBER.size, socket.MSG_WAITALL))[0]
        except (BlockingIOError, TimeoutError):
            return None
        except struct.error:
            raise RuntimeError('the server of forks has ended; python tests/forks.py says why') from None


@functools.cache
def server() -> socket.socket:
    """Start this process's server, which ends when this process does, and return the socket for its requests."""
    ours, theirs = socket.socketpair()
    one_thread = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread, 'DISABLE_RICH': '1'},  # or DI-engine's log would keep a console
        )
    atexit.register(lambda: (ours.close(), process.wait()))
    os.register_at_fork(after_in_child=ours.close)  # or a test's own fork that outlives this process would keep it
    return ours


def serve(requests: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each request; return the request in the fork, and not at all in the server."""
    while True:
        _, fds, _, _ = socket.recv_fds(requests, 1, 3)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not fds:
            sys.exit()
        if len(os.listdir('/proc/self/task')) > 1:
            sys.exit('a process with several threads cannot be forked')
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
    requests.close()
    for fd, place in zip(fds[1:], (1, 2)):
        os.dup2(fd, place)
        os.close(fd)
    with socket.socket(fileno=fds[0]) as connection:
        pid = os.fork()
        if pid:
            watch(pid, connection)
        with connection.makefile('rb') as file:
            return json.loads(file.read(*NUMBER.unpack(file.read(NUMBER.size))))


def watch(pid: int, connection: socket.socket) -> None:
    """Send the number of a child, wait for its end, send its exit code and exit."""
    os.closerange(0, 3)
    connection.sendall(NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def become(words: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Set what a new process takes from where it is started, and what it draws."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    tempfile.tempdir = None
    random.seed()
    sys.modules['numpy'].random.seed()
    sys.modules['torch'].set_num_threads(int(environment.get('OMP_NUM_THREADS', len(os.sched_getaffinity(0)))))
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)  # leaves out the destructors of torch's libraries, which take 0.6 s


def execute(words: list[str]) -> None:
    """Run Python's command line."""
    if words[0] == '-m':
        sys.argv, sys.path[0] = words[1:], ''
        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
    elif words[0] == '-c':
        sys.argv, sys.path[0] = ['-c', *words[2:]], ''
        sys.modules['__main__'] = main = ModuleType('__main__')
        exec(compile(words[1], '<string>', 'exec'), vars(main))
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name='__main__')


def preload() -> None:
    """Import what forks find imported.

    A fork does not clear those modules at its end, which would copy their memory: they leave ``sys.modules`` after all
    other handlers of the exit, and a reference that is never returned holds them.
    """
    kept: dict[str, ModuleType] = {}
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    atexit.register(lambda: [sys.modules.pop(name, None) for name in kept])  # the first to be registered is called last
    for name in PRELOADED:
        importlib.import_module(name)
    assert 'ding_cawr' not in sys.modules
    kept.update(sys.modules)
    for name in ('__main__', 'builtins', 'sys'):
        del kept[name]
    gc.collect()
    gc.freeze()  # a collection in a fork would copy, too


if __name__ == '__main__':
    preload()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    become(*request)
    execute(request[0])
