"""Multipart forms: read the same however they are cut into blocks, and never beyond the limits."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.errors import ClientGoneError, RequestError, UploadTooLargeError
from service.uploads import MAX_FIELDS_BYTES, MAX_PARTS, receive_upload


def part(name, value, filename=None):
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + value + b"\r\n"


END = b"--b--\r\n"
WHOLE = (
    part("model", b"fake")
    + part("file", bytes(range(256)) * 40, "a.wav")
    + part("x[]", b"1")
    + part("x[]", "ü".encode())
)


def receive(blocks, folder, max_bytes=20_000, headers=(), cut=False):
    """Feeds blocks; returns fields, the bytes of the file (None if there was none) and what was left in the folder."""
    messages = [{"type": "http.request", "body": block, "more_body": True} for block in blocks]
    messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False})

    async def next_message():
        return messages.pop(0)

    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b"), *headers],
    }

    async def scene():
        async with receive_upload(Request(scope, next_message), max_bytes=max_bytes, folder=folder) as upload:
            content = None if upload.file is None else upload.file.read_bytes()
            assert content is None or len(content) == upload.size
            return upload.fields, content

    try:
        return asyncio.run(scene())
    finally:
        assert not list(folder.iterdir()), "files were left behind"


@given(cuts=st.lists(st.integers(0, len(WHOLE + END)), max_size=12))
def test_blocks_do_not_matter(tmp_path_factory, cuts):
    body = WHOLE + END
    edges = [0, *sorted(cuts), len(body)]
    blocks = [body[a:b] for a, b in itertools.pairwise(edges)]
    fields, content = receive(blocks, tmp_path_factory.mktemp("uploads"))
    assert fields == {"model": ["fake"], "x[]": ["1", "ü"]}
    assert content == bytes(range(256)) * 40


def test_no_file(tmp_path):
    assert receive([part("model", b"fake") + END], tmp_path) == ({"model": ["fake"]}, None)


def test_an_empty_file_is_a_file(tmp_path):
    assert receive([part("file", b"", "a.wav") + END], tmp_path)[1] == b""


def test_the_limit_is_exact(tmp_path):
    body = part("file", b"x" * 1000, "a.wav") + END
    assert len(receive([body], tmp_path, max_bytes=1000)[1]) == 1000
    with pytest.raises(UploadTooLargeError, match=r"larger than 0\.000999 MB"):
        receive([body], tmp_path, max_bytes=999)


def test_too_large_is_noticed_before_all_is_read(tmp_path):
    # The last message is never asked for: pop would fail.
    with pytest.raises(UploadTooLargeError):
        receive([part("file", b"x" * 30_000, "a.wav")] + [b"y" * 1000] * 1000, tmp_path)


def test_a_length_that_is_declared_too_large_is_believed(tmp_path):
    length = str(20_000 + MAX_FIELDS_BYTES + 1).encode()
    with pytest.raises(UploadTooLargeError):
        receive([], tmp_path, headers=[(b"content-length", length)])


def test_fields_are_limited_too(tmp_path):
    with pytest.raises(UploadTooLargeError) as caught:
        receive([part("prompt", b"x" * (MAX_FIELDS_BYTES + 1)) + END], tmp_path)
    assert caught.value.param == "prompt"
    with pytest.raises(RequestError, match="more than"):
        receive([part("x", b"") * (MAX_PARTS + 1) + END], tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        WHOLE,
        WHOLE[:-30],
        b"nonsense",
        part("file", b"1", "a") + part("file", b"2", "b") + END,
        b"--b\r\nContent-Type: text/plain\r\n\r\nno name\r\n" + END,
    ],
    ids=["empty", "no end", "cut short", "nonsense", "two files", "no name"],
)
def test_broken_forms(tmp_path, body):
    with pytest.raises(RequestError):
        receive([body], tmp_path)


def test_a_client_that_hangs_up_while_sending(tmp_path):
    with pytest.raises(ClientGoneError):
        receive([WHOLE[:2000]], tmp_path, cut=True)
