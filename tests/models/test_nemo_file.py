"""Bundles: what is read, what is refused, and that nothing in them is trusted."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from models.errors import CheckpointError
from models.nemo_file import NemoFile, assign, packed_config, packed_weights, renamed, write_bundle

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.long)}
MEMBERS = {
    "model_config.yaml": packed_config({"target": "x.Y", "sizes": [1, 2]}),
    "model_weights.ckpt": packed_weights(STATE),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "some.nemo"
    write_bundle(target, MEMBERS)
    return target


def _tarred(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _refused(path: Path, message: str, sha256: str | None = None) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        _read(path, sha256)
    assert str(path) in str(caught.value)


def _read(path: Path, sha256: str | None) -> None:
    with NemoFile.open(path, sha256) as bundle:
        bundle.config()
        bundle.weights()


def test_comes_back(path: Path) -> None:
    with NemoFile.open(path) as bundle:
        assert bundle.config() == {"target": "x.Y", "sizes": [1, 2]}
        weights = bundle.weights()
        assert "model_weights.ckpt" in bundle
        assert "other" not in bundle
    assert weights.keys() == STATE.keys()
    assert all(torch.equal(weights[name], STATE[name]) for name in STATE)


def test_equal_members_make_equal_files(path: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "again.nemo", MEMBERS)
    assert (tmp_path / "again.nemo").read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.nemo", "some.nemo"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_names_with_a_dot_and_gzip(tmp_path: Path, mode: str) -> None:
    dotted = {f"./{name}": content for name, content in MEMBERS.items()}
    with NemoFile.open(_tarred(tmp_path / "dotted.nemo", dotted, mode)) as bundle:
        assert bundle.config()["target"] == "x.Y"
        assert torch.equal(bundle.weights()["a"], STATE["a"])


def test_artifacts_are_found_by_their_value(tmp_path: Path) -> None:
    with NemoFile.open(_tarred(tmp_path / "x.nemo", {"abc_tokenizer.model": b"pieces"})) as bundle:
        assert bundle.read("nemo:abc_tokenizer.model") == b"pieces"


def test_a_pinned_hash_is_checked(path: Path) -> None:
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    with NemoFile.open(path, right.upper()) as bundle:
        assert bundle.config()
    _refused(path, "its sha256 is", sha256="0" * 64)


def test_no_file(tmp_path: Path) -> None:
    _refused(tmp_path / "none.nemo", "no such file")
    _refused(tmp_path, "no such file")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 a zip", b"\x1f\x8b\x08\x00 broken gzip"])
def test_not_a_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.nemo"
    path.write_bytes(content)
    _refused(path, "not a NeMo bundle")


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "x.nemo"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _refused(path, "git lfs pull")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8])
def test_truncated(path: Path, kept: float) -> None:
    write_bundle(path, MEMBERS | {"model_weights.ckpt": packed_weights({"a": torch.rand(100_000)})})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    _refused(path, "truncated")


def test_truncated_gzip(path: Path) -> None:
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    _refused(path, "truncated|not a NeMo bundle")


def test_foreign_content(tmp_path: Path) -> None:
    _refused(_tarred(tmp_path / "x.nemo", {"photo.jpg": b"..."}), "no model_config.yaml in it")
    config = {"model_config.yaml": MEMBERS["model_config.yaml"]}
    _refused(_tarred(tmp_path / "y.nemo", config), "no model_weights.ckpt in it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- 1", "is not a mapping"),
        (b"", "is not a mapping"),
    ],
)
def test_a_broken_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    _refused(_tarred(tmp_path / "x.nemo", MEMBERS | {"model_config.yaml": content}), message)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    hostile = b"target: !!python/object/apply:os.system ['true']"
    _refused(_tarred(tmp_path / "x.nemo", {"model_config.yaml": hostile}), "is not YAML")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("boom",)


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [pickle.dumps(_Bomb(), protocol=2), _pickled({"a": _Bomb()})], ids=["pickle", "zip"]
)
def test_weights_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(_tarred(tmp_path / "x.nemo", MEMBERS | {"model_weights.ckpt": content}), "more than plain weights")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [_pickled([1, 2]), _pickled({"a": "text"})])
def test_weights_are_a_state_dict(tmp_path: Path, content: bytes) -> None:
    _refused(_tarred(tmp_path / "x.nemo", MEMBERS | {"model_weights.ckpt": content}), "not a state dict")


def test_members_are_never_followed(tmp_path: Path) -> None:
    """Links and paths out of the bundle are just names that nobody asks for."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("target: secret")
    path = tmp_path / "x.nemo"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("model_config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        outside = tarfile.TarInfo("../../outside")
        outside.size = 1
        archive.addfile(outside, io.BytesIO(b"x"))
    _refused(path, "no model_config.yaml in it")
    assert not (tmp_path.parent.parent / "outside").exists()


def test_small_members_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.nemo_file._SMALL_BYTES", 10)
    _refused(_tarred(tmp_path / "x.nemo", MEMBERS), "at most 10 are read")


def test_names_go_both_ways() -> None:
    names = (("theirs.deep.", "ours.deep."), ("theirs.", "ours.other."))
    state = {"theirs.deep.a": torch.ones(1), "theirs.b": torch.ones(1), "same": torch.ones(1)}
    ours = renamed(state, names)
    assert list(ours) == ["ours.deep.a", "ours.other.b", "same"]
    assert list(renamed(ours, names, to_nemo=True)) == list(state)


def _assigned(state: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assign(module, state, torch.device("cpu"), dtype, "some.nemo: weights")
    return module


def _complete() -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).half().state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_take_the_precision_asked_for(dtype: torch.dtype) -> None:
    module = _assigned(_complete(), dtype)
    floating = {value.dtype for value in module.state_dict().values() if value.is_floating_point()}
    assert floating == {dtype}
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_counters_may_be_missing() -> None:
    state = _complete()
    del state["1.num_batches_tracked"]
    assert int(_assigned(state).state_dict()["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "missing: 0.weight$"),
        ({"1.bias": None, "1.weight": None, "0.bias": None}, "missing: 0.bias, 1.weight, 1.bias$"),
        ({f"extra.{i}": torch.ones(1) for i in range(6)}, "unexpected: extra.0, extra.1, extra.2, extra.3 and 2 more$"),
        ({"0.weight": torch.ones(5, 5)}, "of another shape: 0.weight$"),
    ],
)
def test_weights_that_do_not_fit(change: Mapping[str, torch.Tensor | None], message: str) -> None:
    state = {name: value for name, value in (_complete() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=message) as caught:
        _assigned(state)
    assert str(caught.value).startswith("some.nemo: weights: the weights do not fit the configuration")
