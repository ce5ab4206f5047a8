"""Python processes for tests that start in no time: forks of one process that has imported torch, trl and datasets.

    python forked_python.py serve ADDRESS                  # imports, prints a line, forks for every connection
    python forked_python.py connect ADDRESS [argument ...] # stands for `python [argument ...]`

`connect` passes on its working directory, environment, standard streams and arguments, and ends as the process does;
if `connect` is killed, the process is ended. The process differs from `python` in one thing: the modules in `IMPORTED`
are there already, and have read the environment of the tests. A test of what an import does or costs must not use it.
"""

from __future__ import annotations

import array
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

IMPORTED = (
    "bird_hf.cli.commands",
    "bird_hf.eval.predict",
    "bird_hf.hub.modeling_bird",
    "bird_hf.hub.processing_bird",
    "bird_hf.reports.run_report",
    "bird_hf.train.run",
    "evaluate",
    "torch.distributed.run",
)
_SIZE = 8  # bytes that say how long the request is
_STREAMS = array.array("i", range(3))


def connect(address: str, arguments: list[str]) -> None:
    """Have a process run `arguments`, and end with its exit code or signal."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _STREAMS)]
        connection.sendmsg([len(request).to_bytes(_SIZE, "big")], files)
        connection.sendall(request)
        code = int(connection.recv(_SIZE) or b"1")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str) -> None:
    """Fork for every connection until stdin is closed; returns in the forks, and at the end."""
    for name in IMPORTED:
        __import__(name)
    gc.freeze()  # the collector of a fork would write to all pages, and copy them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return _answer(connection)
            _wait_for_ended()
    _wait_for_ended()


def _wait_for_ended() -> None:
    """Forks that have ended are removed, and their seconds count as this process's."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return  # there are none


def _answer(connection: socket.socket) -> None:
    """Fork the process that is asked for, and return in it; tell its end, or end it if the asking program is gone."""
    size, files, _, _ = connection.recvmsg(_SIZE, socket.CMSG_SPACE(3 * _STREAMS.itemsize))
    streams, request = array.array("i", files[0][2]), b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(1 << 16)
    process = os.fork()
    if process == 0:
        connection.close()
        return _run(streams, *json.loads(request))
    for stream in (*streams, *_STREAMS):
        os.close(stream)  # so that who reads them sees their end
    ended = os.pidfd_open(process)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(process, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        connection.sendall(str(code).encode())
    finally:
        os._exit(0)


def _run(streams: array.array[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become `python *arguments`."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    while arguments[0] == "-u":  # as torchrun starts its processes
        arguments = arguments[1:]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, folder)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, folder)
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        connect(sys.argv[2], sys.argv[3:])
    else:
        serve(sys.argv[2])
