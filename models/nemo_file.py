"""NeMo bundles (`.nemo`): a path in; configurations, weights and tokenizer files out, and the way back.

A bundle is a tar of `model_config.yaml`, `model_weights.ckpt` and the files that the configuration names as
``nemo:HASH_name``. Nothing in it is trusted: members are looked up by name and read, never unpacked to where they
say; YAML is loaded as plain data; weights are loaded as tensors only.
"""

import hashlib
import io
import pickle
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import torch
import yaml
from torch import Tensor, nn

from models.errors import CheckpointError

MODEL_CONFIG = "model_config.yaml"
MODEL_WEIGHTS = "model_weights.ckpt"

# Configurations and tokenizers are small; a larger one is a mistake or an attack.
_SMALL_BYTES = 64 * 2**20
_NAMED_KEYS = 4  # of the wrong weights that an error lists
_LFS_POINTER = b"version https://git-lfs"
# What reading a damaged archive or pickle raises, depending on where the damage is.
_DAMAGE = (tarfile.TarError, OSError, EOFError, RuntimeError, pickle.UnpicklingError, ValueError)

Names = tuple[tuple[str, str], ...]
"""Pairs of a prefix of NeMo's weight names and the prefix it has here; the first that fits counts."""


class NemoFile:
    """A bundle, open for reading; use as a context manager.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> None:
        self.path = path
        self._archive = archive
        self._members = members

    @classmethod
    def open(cls, path: Path, sha256: str | None = None) -> Self:
        """Opens a bundle and lists its members.

        Args:
            path: A tar, plain or gzipped.
            sha256: What the file must hash to, in hexadecimal; None to take any.

        Raises:
            CheckpointError: There is no such file, it is no tar, it is truncated, or its hash is another.
        """
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        if sha256 is not None:
            _verify(path, sha256)
        archive = _open_tar(path)
        try:
            # Names may start with "./"; of several with one name the last counts, as if unpacked in order.
            members = {m.name.removeprefix("./"): m for m in archive.getmembers() if m.isreg()}
        except _DAMAGE as error:
            archive.close()
            raise CheckpointError(f"{path}: truncated or damaged ({error})") from error
        return cls(path, archive, members)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def config(self, name: str = MODEL_CONFIG) -> dict[str, Any]:
        """Reads a YAML member.

        Raises:
            CheckpointError: It is missing or not a YAML mapping.
        """
        content = self.read(name)
        try:
            config = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.path}: {name} is not YAML ({error})") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.path}: {name} is not a mapping")
        return config

    def read(self, name: str) -> bytes:
        """Reads a small member whole.

        Args:
            name: The member, or a configuration value that names it ("nemo:HASH_tokenizer.model").

        Raises:
            CheckpointError: It is missing, damaged or far larger than such a file can be.
        """
        name = name.removeprefix("nemo:")
        member = self._member(name)
        if member.size > _SMALL_BYTES:
            raise CheckpointError(f"{self.path}: {name} has {member.size} bytes, at most {_SMALL_BYTES} are read")
        try:
            return self._stream(member).read()
        except _DAMAGE as error:
            raise CheckpointError(f"{self.path}: {name} is truncated or damaged ({error})") from error

    def weights(self, name: str = MODEL_WEIGHTS) -> dict[str, Tensor]:
        """Reads a state dict to the CPU; as tensors only, so that a hostile pickle cannot run code.

        From a plain tar the tensors are read straight from their place in it: nothing is unpacked, and 6 GB of
        weights take 6 GB of memory. A gzipped one cannot be read out of order and goes through a temporary file.

        Raises:
            CheckpointError: It is missing, damaged or not a state dict.
        """
        member = self._member(name)
        try:
            if isinstance(self._archive.fileobj, io.BufferedReader):
                state = torch.load(self._stream(member), map_location="cpu", weights_only=True)
            else:
                state = self._unpacked_weights(member)
        except _DAMAGE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            message = f"{self.path}: {name} is truncated, damaged or more than plain weights ({reason})"
            raise CheckpointError(message) from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{self.path}: {name} is not a state dict")
        return state

    def _unpacked_weights(self, member: tarfile.TarInfo) -> Any:
        with tempfile.TemporaryFile() as unpacked:
            stream = self._stream(member)
            while block := stream.read(2**22):
                unpacked.write(block)
            unpacked.seek(0)
            return torch.load(unpacked, map_location="cpu", weights_only=True)

    def _member(self, name: str) -> tarfile.TarInfo:
        if name not in self._members:
            raise CheckpointError(f"{self.path}: there is no {name} in it, so it is not a bundle of that kind")
        return self._members[name]

    def _stream(self, member: tarfile.TarInfo) -> BinaryIO:
        stream = self._archive.extractfile(member)
        if stream is None:
            raise CheckpointError(f"{self.path}: {member.name} is not a file")
        return cast(BinaryIO, stream)


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise CheckpointError(f"{path}: its sha256 is {found}, but {sha256} is pinned")


def _open_tar(path: Path) -> tarfile.TarFile:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path}: this is a Git LFS pointer, not the weights; run `git lfs pull`")
    try:
        return tarfile.open(path, "r:")
    except tarfile.ReadError:
        pass
    try:
        return tarfile.open(path, "r:gz")
    except (tarfile.ReadError, EOFError, OSError) as error:
        raise CheckpointError(f"{path}: not a NeMo bundle (neither a tar nor a gzipped tar)") from error


def renamed(state: Mapping[str, Tensor], names: Names, *, to_nemo: bool = False) -> dict[str, Tensor]:
    """Renames the weights of a state dict between NeMo and here; names that no prefix fits stay.

    Args:
        state: Weights by name.
        names: The pairs of prefixes.
        to_nemo: From our names to NeMo's; otherwise from NeMo's to ours.
    """
    pairs = [(ours, theirs) if to_nemo else (theirs, ours) for theirs, ours in names]

    def rename(name: str) -> str:
        for old, new in pairs:
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return {rename(name): value for name, value in state.items()}


def assign(
    module: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, source: str
) -> None:
    """Gives a module its weights, on a device and in a precision, without a second copy of them.

    Features are always computed in float32, so the buffers of ``log_mel`` stay in it.

    Args:
        module: May be laid out on the meta device.
        state: All its weights, in whatever precision they were stored.
        device: Where they go.
        dtype: What floating-point weights become.
        source: File and member, for the message.

    Raises:
        CheckpointError: Weights are missing, left over or of another shape; the message names the first few.
    """
    expected = module.state_dict()
    # Batch-norm counters only matter to training, and some tools drop them.
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith("num_batches_tracked")}
    state = counters | dict(state)
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [n for n, value in expected.items() if n in state and state[n].shape != value.shape],
    }
    if any(problems.values()):
        raise CheckpointError(f"{source}: the weights do not fit the configuration: {_summary(problems)}")
    placed = {}
    for name, value in state.items():
        target = torch.float32 if name.startswith("log_mel.") else dtype
        placed[name] = value.to(device, target if value.is_floating_point() else None)
    module.load_state_dict(placed, assign=True)
    module.requires_grad_(False).eval()


def _summary(problems: Mapping[str, list[str]]) -> str:
    def listed(names: list[str]) -> str:
        more = f" and {len(names) - _NAMED_KEYS} more" if len(names) > _NAMED_KEYS else ""
        return ", ".join(names[:_NAMED_KEYS]) + more

    return "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)


def write_bundle(target: Path, members: Mapping[str, bytes]) -> None:
    """Packs a bundle that NeMo restores: a plain tar, the same bytes for the same members.

    Args:
        target: Where to; appears only when complete.
        members: Contents by name.
    """
    part = target.with_name(target.name + ".part")
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    part.replace(target)


def packed_config(config: Mapping[str, Any]) -> bytes:
    """A YAML member."""
    return yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False).encode()


def packed_weights(state: Mapping[str, Tensor]) -> bytes:
    """A state dict member; tensors that share storage are stored once."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def artifact_name(content: bytes, name: str) -> str:
    """What NeMo calls a file in a bundle: a hash that keeps equal names apart, then the name."""
    return f"{hashlib.sha256(content).hexdigest()[:32]}_{name}"
