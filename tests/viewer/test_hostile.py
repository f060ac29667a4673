"""Hostile requests and hostile stores: nothing leaks, nothing runs, and a clear message says why."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import headwater as hw
from headwater.dataset import run
from headwater.viewer import Viewing, view
from headwater.viewer.guard import Policy, is_loopback
from headwater.viewer.view import bind
from tests.viewer.common import Client, model, samples

pytest.importorskip("PIL")

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SECRET = "the secret beside the store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    (path / "secret.txt").write_text(SECRET)
    x, _ = samples()
    names = [SCRIPT, "=cmd|' /C calc'!A0", "../../../etc/passwd", "a\nb", "\u202egnp.exe", "'; DROP TABLE samples; --"]
    ids = [names[i] if i < len(names) else f"sample{i}" for i in range(len(x))]
    labels = [SCRIPT if i % 2 else "\"'><svg onload=alert(3)>" for i in range(len(x))]
    items = [(a, b) for a, b in zip(x, labels, strict=True)]
    run(model(), items, path / "store", batch_size=10, chunk=20, ids=ids, keep_inputs=True, progress=False)
    return path


@pytest.fixture(scope="module")
def viewing(folder: Path) -> Iterator[Viewing]:
    with view(folder / "store", model(), port=0, block=False, classes=[SCRIPT, "b", "c"]) as found:
        yield found


@pytest.fixture
def client(viewing: Viewing) -> Client:
    return Client(viewing.url)


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[Viewing]:
    with view(folder / "store", port=0, block=False, token=True) as found:
        yield found


TRAVERSALS = [
    "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/assets/../../secret.txt",
    "//etc/passwd", "/etc/passwd", "/file:///etc/passwd", "/..\\secret.txt", "/%00", "/static/../view.py", "/view.py",
    "/api/sample/..%2f..%2fsecret.txt", "/api/sample/1/../../../secret.txt", "/api/cluster/..%2f/heatmap.png",
    "/api/column?name=../../secret.txt", "/api/column?name=/etc/passwd", "/api/map?name=../../secret.txt",
    "/api/sample/1/heatmap.png?explanation=../../secret.txt", "/api/sample/1/values?part=../../secret",
    "/api/selection?name=../../secret.txt", "/api/export?selection=../../secret.txt&format=csv",
    "/api/live/..%2f..%2fsecret.txt/heatmap.png", "/api/column?name=lrp/../ids", "/api/column/facts?name=commits",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_reaches_the_file_system(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status in (400, 404, 409)
    assert SECRET.encode() not in answer.body
    assert b"root:" not in answer.body


def test_written_names_stay_in_one_file(client: Client, folder: Path) -> None:
    before = set(folder.parent.rglob("*"))
    for name in ("..%2F..%2Fevil", "%2Ftmp%2Fevil", "..", "C:%5Cevil", "__proto__", "selections.json"):
        assert client.send("PUT", f"/api/selection?name={name}", {"rows": [1], "note": SCRIPT}).status == 200
    made = set(folder.parent.rglob("*")) - before
    assert {p.name for p in made} <= {"store.viewer", "selections.json", ".selections.json.lock", ".pending"}
    for name in [s["name"] for s in client.json("/api/selections")["selections"]]:
        from urllib.parse import quote

        exported = client.get(f"/api/export?selection={quote(name, safe='')}&format=csv")
        disposition = exported.headers["content-disposition"]
        assert ".." not in disposition
        assert "/" not in disposition.partition("filename=")[2]
        client.send("DELETE", f"/api/selection?name={quote(name, safe='')}&revision=1")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "8.8.8.8"]
)
def test_a_forged_host_is_refused(client: Client, host: str) -> None:
    answer = client.send("GET", "/api/store", headers={"Host": host})
    assert answer.status == 403
    assert "printed" in answer.error()
    assert client.send("GET", "/", headers={"Host": host}).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:99", "localhost:9000"])
def test_names_of_this_machine_are_answered_through_any_port(client: Client, host: str) -> None:
    assert client.send("GET", "/api/health", headers={"Host": host}).status == 200


def test_two_hosts_are_refused(viewing: Viewing) -> None:
    client = Client(viewing.url)
    with socket.create_connection((client.host, client.port), 10) as raw:
        raw.sendall(b"GET /api/store HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := raw.recv(65536):
            answer += piece
    assert b"shirt" not in answer
    assert answer.split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)  # fmt: skip
def test_requests_of_other_pages_are_refused(client: Client, headers: dict[str, str]) -> None:
    assert client.send("GET", "/api/store", headers=headers).status == 403
    assert client.send("PUT", "/api/selection?name=x", {"rows": [1]}, headers).status == 403
    assert client.send("DELETE", "/api/selection?name=x&revision=1", headers=headers).status == 403


def test_a_link_from_another_page_opens_the_page_alone(client: Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.send("GET", "/", headers=link).status == 200
    own = {"Origin": f"http://{client.host}:{client.port}", "Sec-Fetch-Site": "same-origin"}
    assert client.send("POST", "/api/search", {"filter": ""}, own).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_what_a_form_can_send_is_refused(client: Client, kind: str) -> None:
    answer = client.send("POST", "/api/search", {"filter": ""}, {"Content-Type": kind})
    assert answer.status == 403


def test_nothing_is_answered_without_the_token(locked: Viewing) -> None:
    client = Client(locked.url)
    token = client.query.removeprefix("token=")
    assert len(token) >= 40
    for path in (
        "/",
        "/api/store",
        "/api/health",
        "/api/map",
        "/nothing",
        "/?token=wrong",
        f"/api/store?token={token}",
    ):
        answer = client.get(path)
        assert answer.status == 401, path
        assert "token" in answer.error()
        assert "set-cookie" not in answer.headers
    opened = client.get(f"/?token={token}")
    assert opened.status == 200
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    pair = cookie.partition(";")[0]
    assert client.get("/api/store", Cookie=f"other=1; {pair}").status == 200
    assert client.get("/api/store", Authorization=f"Bearer {token}").status == 200
    for wrong in (pair[:-1], pair + "x", f"{pair.partition('=')[0]}=", "=;;=", f"x={token}"):
        assert client.get("/api/store", Cookie=wrong).status == 401
    assert client.get("/api/store", Cookie=pair, Origin="http://evil.example").status == 403
    assert client.get("/api/store", Cookie=pair, Host="evil.example").status == 403


def test_another_address_always_has_a_token(folder: Path) -> None:
    with view(folder / "store", host="0.0.0.0", port=0, block=False) as viewing:
        assert "token=" in viewing.url
        client = Client(f"http://127.0.0.1:{viewing.url.rpartition(':')[2].partition('/')[0]}/")
        assert client.get("/api/store").status == 401
        token = viewing.url.partition("token=")[2]
        assert client.get("/api/store", Authorization=f"Bearer {token}").status == 200
        assert client.get("/api/store", Authorization=f"Bearer {token}", Host="evil.example").status == 403


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "", "localhost.evil"))
    assert Policy("127.0.0.1", "a").cookie != Policy("127.0.0.1", "b").cookie


def test_a_taken_port_is_passed_over() -> None:
    first = bind("127.0.0.1", 0)
    try:
        with pytest.raises(hw.InvalidInput, match="cannot serve"):
            bind("127.0.0.1", first.getsockname()[1])
    finally:
        first.close()


@pytest.mark.parametrize("path", ["/", "/api/store", "/api/sample/0", "/nothing", "/api/sample/999"])
def test_every_answer_is_fenced_in(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers
    assert not any(name.startswith("access-control") for name in headers)


def test_data_from_the_store_is_data_in_json_and_text_in_reports(client: Client) -> None:
    sample = client.get("/api/sample/0")
    assert sample.headers["content-type"] == "application/json"
    assert sample.json()["id"] == SCRIPT
    page = client.post("/api/export?format=html", {"rows": list(range(8)), "title": SCRIPT})
    text = page.body.decode()
    assert "attachment" in page.headers["content-disposition"]
    lowered = text.lower()
    assert "<script" not in lowered
    assert "<svg" not in lowered
    assert "onerror" not in lowered.replace("onerror=alert(2)&gt;", "")
    assert "&lt;script&gt;" in text
    for scheme in ("http://", "https://", 'src="/', "url("):
        assert scheme not in text
    table = client.post("/api/export?format=csv", {"rows": list(range(8))}).body.decode()
    assert "'=cmd|" in table
    assert "line break" in client.post("/api/export?format=ids", {"rows": [3]}).error()
    assert client.rows("label = '" + SCRIPT + "'") == list(range(1, 60, 2))
    error = client.post("/api/search", {"filter": SCRIPT})
    assert error.status == 400
    assert error.headers["content-type"] == "application/json"


def test_names_in_an_archive_stay_in_it(client: Client) -> None:
    import io
    import zipfile

    answer = client.post("/api/export?format=png", {"rows": list(range(6))})
    names = zipfile.ZipFile(io.BytesIO(answer.body)).namelist()
    assert len(names) == 7
    assert all("/" not in name and "\\" not in name and ".." not in name for name in names)


@pytest.mark.parametrize("raw", [b"{", b"[" * 100_000, b"\xff\xfe", b'{"filter": NaN}', b'"text"', b"null", b""])
def test_broken_bodies_are_refused(client: Client, raw: bytes) -> None:
    answer = client.send("POST", "/api/search", raw=raw)
    assert answer.status == 400 or (raw == b'{"filter": NaN}' and answer.status == 400)
    assert answer.json()["error"]["message"]


def test_halves_of_letters_are_refused(client: Client) -> None:
    for path, body in (
        ("/api/selection?name=x", {"rows": [1], "note": "\ud800"}), ("/api/search", {"filter": "\udfff"}),
        ("/api/export?format=html", {"rows": [1], "title": "a\ud800"}),
        ("/api/explain", {"row": 1, "method": "\ud800"}),
    ):  # fmt: skip
        assert client.send("PUT" if "selection" in path else "POST", path, body).status == 400
    assert client.json("/api/selections")["selections"] == []


def test_a_folder_that_cannot_be_written_is_told(copied: Path) -> None:
    (copied.parent / "store.viewer").write_text("a file in the way")
    with pytest.raises(hw.InvalidInput, match="is a file"):
        view(copied, block=False)


def test_too_large_bodies_are_not_read(client: Client) -> None:
    answer = client.send(
        "POST", "/api/search", headers={"Content-Type": "application/json", "Content-Length": str(1 << 40)}
    )
    assert answer.status == 413
    assert "MiB" in answer.error()
    with socket.create_connection((client.host, client.port), 10) as raw:  # nor those that do not say their length
        head = f"POST /api/search HTTP/1.1\r\nHost: {client.host}\r\nContent-Type: application/json\r\n"
        raw.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(1100):
                raw.sendall(piece)
            answer_ = raw.recv(4096)
        except OSError:
            answer_ = b"HTTP/1.1 413"
    assert b" 413 " in answer_ + b" "


def test_an_expression_is_never_code(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for text in (
        f"__import__('os').system('touch {mark}')", "label = 1; import os", "$(touch x)", "read_csv('/etc/passwd')",
        "label.__class__ = 1", "(" * 1000, "not " * 500 + "label = b", "a" * 5000, "label ~ " + "'" * 3,
    ):  # fmt: skip
        answer = client.post("/api/search", {"filter": text})
        assert answer.status in (200, 400)
        if answer.status == 200:
            assert answer.headers["x-count"] == "0"
    assert not mark.exists()


# ---------------------------------------------------------------------- hostile stores


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "store", tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_manifest(copied: Path, size: int) -> None:
    content = (copied / "manifest.json").read_bytes()
    (copied / "manifest.json").write_bytes(content[:size])
    with pytest.raises(hw.InvalidInput, match="no store of headwater"):
        view(copied, block=False)


def test_a_manifest_that_leaves_its_store(copied: Path) -> None:
    facts = json.loads((copied / "manifest.json").read_text())
    for name in ("../other/ids", "/etc", "lrp/../../x", ""):
        facts["arrays"][0]["name"] = name
        (copied / "manifest.json").write_text(json.dumps(facts))
        with pytest.raises(hw.InvalidInput, match="trusted"):
            view(copied, block=False)


def test_an_array_that_claims_another_length(copied: Path) -> None:
    metadata = json.loads((copied / "lrp" / "outputs" / "zarr.json").read_text())
    metadata["shape"] = [10**15]
    (copied / "lrp" / "outputs" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(hw.InvalidInput, match="lrp/outputs has the shape"):
        view(copied, block=False)


@pytest.mark.parametrize("keep", [0, 30])
def test_truncated_arrays(copied: Path, keep: int) -> None:
    for name in ("lrp/relevance/c/1/0/0/0", "labels/c/1", "lrp/outputs/c/1", "inputs/c/1/0/0/0"):
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content[:keep])
    with view(copied, model(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert any("damaged" in notice for notice in facts["notices"])
        assert client.get("/api/sample/5/heatmap.png").status == 200
        broken = ["/api/sample/25/heatmap.png", "/api/sample/25/values"]
        if keep:  # what is empty reads as missing
            assert "label" not in {column["name"] for column in facts["columns"]}
            broken += ["/api/sample/25/input.png", "/api/column?name=lrp.output", "/api/map?name=principal"]
        for path in broken:
            answer = client.get(path)
            assert answer.status == 409, path
            assert "run the same job again" in answer.error()


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"zarr_format": 3, "node_type": "array"}'])
def test_damaged_metadata(copied: Path, content: str | None) -> None:
    for name in ("labels", "lrp/delta"):
        (copied / name / "zarr.json").unlink()
        if content is not None:
            (copied / name / "zarr.json").write_text(content)
    with view(copied, model(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert any("labels is damaged" in notice for notice in facts["notices"])
        assert "run the same job again" in client.get("/api/column?name=lrp.delta").error()
        assert client.get("/api/sample/5/heatmap.png").status == 200


def test_arrays_that_unpickle_are_not_read(copied: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)  # type: ignore[return-value]

    pytest.importorskip("numcodecs")
    (copied / "ids" / "zarr.json").unlink()
    facts = {
        "zarr_format": 2, "shape": [60], "chunks": [60], "dtype": "|O", "compressor": None, "fill_value": "",
        "order": "C", "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 4}],
    }  # fmt: skip
    (copied / "ids" / ".zarray").write_text(json.dumps(facts))
    (copied / "ids" / "0").write_bytes(pickle.dumps([Evil(), "|O", [60]]))
    with view(copied, port=0, block=False) as viewing:
        assert "damaged" in Client(viewing.url).get("/api/sample/5").error()
    assert not (tmp_path / "ran").exists()


def test_a_truncated_analysis(copied: Path, tmp_path: Path) -> None:
    from headwater.analyze import spray

    pytest.importorskip("faiss")
    spray(copied, by=None, clusters=2, eigenvalues=4).save(tmp_path / "found")
    content = (tmp_path / "found" / "spray.npz").read_bytes()
    (tmp_path / "found" / "spray.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(hw.InvalidInput, match="damaged"):
        view(copied, analysis=tmp_path / "found", block=False)
    (tmp_path / "found" / "spray.npz").write_bytes(content)
    (tmp_path / "found" / "spray.json").write_text("{")
    with pytest.raises(hw.InvalidInput, match="damaged"):
        view(copied, analysis=tmp_path / "found", block=False)


def test_pickled_arrays_are_not_opened(copied: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)  # type: ignore[return-value]

    (tmp_path / "found").mkdir()
    evil = np.array([Evil()], dtype=object)
    np.savez(tmp_path / "found" / "spray.npz", labels=evil, embedding=evil, outliers=evil, means=evil, totals=evil)
    (tmp_path / "found" / "spray.json").write_text('{"groups": [], "clusters": []}')
    with pytest.raises(hw.InvalidInput, match="damaged"):
        view(copied, analysis=tmp_path / "found", block=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {"rows": [99999]}}', '{"a": {"rows": "x"}}', '{"a": 3}'])
def test_damaged_selections(copied: Path, content: str) -> None:
    beside = copied.parent / "store.viewer"
    beside.mkdir()
    (beside / "selections.json").write_text(content)
    with view(copied, port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert "selections.json" in client.get("/api/selections").error()
        assert client.send("PUT", "/api/selection?name=b", {"rows": [1]}).status == 409
        assert client.get("/api/store").status == 200
    assert (beside / "selections.json").read_text() == content
