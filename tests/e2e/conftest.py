"""A real server process on a free port, and the official client."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A server process; its log goes to a file, so that no pipe can fill up."""

    process: "subprocess.Popen[str]"
    log: Path
    timeout: float

    def wait_for(self, condition: Callable[[], object]) -> object:
        deadline = time.monotonic() + self.timeout
        while not (found := condition()):
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"it did not come true in time:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def url(self) -> str:
        match = self.wait_for(lambda: re.search(r"running on (http://[\d.]+:\d+)", self.log.read_text()))
        return match[1]

    def wait_ready(self) -> None:
        url = self.url() + "/health/ready"
        self.wait_for(lambda: httpx.get(url).status_code == 200)

    def client(self, **options: object) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=self.url() + "/v1", **{"api_key": "none", "max_retries": 0, "timeout": 120, **options}
        )


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Server]]:
    """Starts ``python ...`` and ends it; environment variables are given without their prefix."""

    @contextmanager
    def start(*args: str, timeout: float = 60.0, ready: bool = True, **settings: object) -> Iterator[Server]:
        log = tmp_path_factory.mktemp("server") / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AVIARY_")}
        environment |= {f"AVIARY_{name.upper()}": str(value) for name, value in settings.items()}
        with (
            log.open("w") as sink,
            subprocess.Popen(
                [sys.executable, *args],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            ) as process,
        ):
            server = Server(process, log, timeout)
            try:
                if ready:
                    server.wait_ready()
                yield server
            finally:
                process.kill()

    return start
