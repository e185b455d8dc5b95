"""Does the wheel hold everything that it needs? Builds it, installs it alone, starts it from an empty folder.

Packages come from uv's cache, which `make lint` or `make test` has filled: little is downloaded a second time.
"""

import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from live_server import ServerError, running

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
READY_TIMEOUT_S = 300


def main() -> int:
    """Runs the check; prints what is wrong."""
    build = ROOT / "build" / "wheel-check"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    try:
        wheel = build_wheel(build)
        check_contents(wheel)
        aviary = install(wheel, build / "venv")
        with tempfile.TemporaryDirectory(prefix="aviary-empty-") as name:
            _say("Starting it from an empty folder")
            with running(aviary, [], folder=Path(name), ready_timeout_s=READY_TIMEOUT_S) as address:
                with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as reply:
                    print(f"    /v1/models: {reply.read().decode()}")
                _say("Stopping it")
    except (ServerError, ValueError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    shutil.rmtree(build)
    _say("The wheel is complete")
    return 0


def build_wheel(folder: Path) -> Path:
    """Builds the wheel with the build tools of the lock."""
    _say("Building the wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return next(folder.glob("*.whl"))


def check_contents(wheel: Path) -> None:
    """Compares the wheel with git: every file of the two packages but the recipe's.

    Raises:
        ValueError: A file is missing or should not be there.
    """
    tracked = subprocess.run(
        ["git", "ls-files", "--", "service", "models"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {name for name in tracked if not name.startswith("models/embedded/recipe/")}
    with zipfile.ZipFile(wheel) as archive:
        contents = {name for name in archive.namelist() if ".dist-info/" not in name}
    if missing := sorted(expected - contents):
        raise ValueError(f"{wheel.name} lacks {', '.join(missing)}")
    if foreign := sorted(name for name in contents if name.startswith("models/embedded/recipe/")):
        raise ValueError(f"{wheel.name} contains the recipe: {', '.join(foreign)}")


def install(wheel: Path, venv: Path) -> Path:
    """Installs the locked runtime packages and the wheel in a new environment; returns its `aviary`."""
    _say("Installing it in a clean environment")
    python = str(venv / "bin" / "python")
    _run(str(UV), "venv", "--quiet", "--python", sys.executable, str(venv))
    constraints = ["--build-constraints", "requirements-dev.lock"]
    _run(str(UV), "pip", "install", "--python", python, "--require-hashes", *constraints, "-r", "requirements.lock")
    _run(str(UV), "pip", "install", "--python", python, "--no-deps", str(wheel))
    _run(str(UV), "pip", "check", "--python", python)
    return venv / "bin" / "aviary"


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def _say(message: str) -> None:
    print(f"==> {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
