"""Starts `aviary serve` as a process of its own, waits until it is ready, stops it.

In: the path of the command and its options. Out: the service's address, for as long as the `with` block runs.
Standard library only: `wheel_check.py` runs it against an environment that holds nothing else.
"""

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

STOP_TIMEOUT_S = 60
# uvicorn raises the signal again once it has stopped in good order, so that the parent sees what ended it.
STOPPED = (0, -signal.SIGTERM)
LOG_TAIL_LINES = 40


class ServerError(RuntimeError):
    """The service did not start, died, or did not stop as it should; the message ends with its last log lines."""


@contextmanager
def running(command: Path, options: Sequence[str], *, folder: Path, ready_timeout_s: float) -> Iterator[str]:
    """Runs `aviary serve` on a free port of the loopback interface.

    Args:
        command: The `aviary` executable.
        options: Further options of `aviary serve`.
        folder: Working directory of the service; its log is written there as ``aviary.log``.
        ready_timeout_s: How long loading the model may take.

    Yields:
        The address, such as ``http://127.0.0.1:40123``.

    Raises:
        ServerError: It did not become ready, died in between, or did not stop as asked.
    """
    port = _free_port()
    log = folder / "aviary.log"
    arguments = [str(command), "serve", "--host", "127.0.0.1", "--port", str(port), *options]
    with log.open("wb") as sink:
        process = subprocess.Popen(arguments, cwd=folder, stdout=sink, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, address, log, ready_timeout_s)
        yield address
        if process.poll() is not None:
            raise ServerError(_with_log(f"the service died with exit code {process.returncode}", log))
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ServerError(_with_log(f"the service did not stop within {STOP_TIMEOUT_S} s", log)) from error
        if code not in STOPPED:
            raise ServerError(_with_log(f"the service stopped with exit code {code}", log))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def log_tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path, timeout_s: float) -> None:
    start = time.monotonic()
    next_word_s = 0.0
    while (elapsed := time.monotonic() - start) < timeout_s:
        if process.poll() is not None:
            raise ServerError(_with_log(f"the service ended with exit code {process.returncode} while starting", log))
        if _is_ready(address):
            print(f"    ready after {elapsed:.1f} s", flush=True)
            return
        if elapsed >= next_word_s:
            print(f"    waiting for {address}/health/ready ({elapsed:.0f} s)", flush=True)
            next_word_s += 5
        time.sleep(0.2)
    raise ServerError(_with_log(f"the service was not ready within {timeout_s:.0f} s", log))


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):  # 503 while the model loads; refused or reset while the process starts
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _with_log(message: str, log: Path) -> str:
    return f"{message}\n--- the end of {log.name} ---\n{log_tail(log)}"
