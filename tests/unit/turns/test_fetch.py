"""Fetching: what is refused before a connection, during it, and in the answer."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from safecode_guard.errors import FetchFailed, ForbiddenSource, ImageError, ImageTooLarge
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import fetch
from safecode_guard.turns.fetch import (
    PinnedBackend,
    Target,
    check_addresses,
    check_url,
    download,
    fetch_image,
)
from safecode_guard.turns.reading import read_turn

POLICY = ImagePolicy(allow_urls=True, url_hosts=("Pictures.example",), max_bytes=1000)
URL = "https://pictures.example/a.png"
PUBLIC = "93.184.215.14"


def public(host: str) -> list[str]:
    return [PUBLIC]


# -- the URL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example/a.png",
        "ftp://pictures.example/a.png",
        "https:/pictures.example/a.png",
        "https://other.example/a.png",
        "https://pictures.example.evil.example/a.png",
        "https://sub.pictures.example/a.png",
        "https://evilpictures.example/a.png",
        "https://pictures.example./a.png",
        "https://pictures.example:80/a.png",
        "https://pictures.example:8443/a.png",
        "https://pictures.example:99999/a.png",
        "https://pictures.example:x/a.png",
        "https://user@pictures.example/a.png",
        "https://user:secret@pictures.example/a.png",
        "https://pictures.example@127.0.0.1/a.png",
        "https://127.0.0.1\\@pictures.example/a.png",
        "https://pictures.example\\@127.0.0.1/a.png",
        "https://pictures.example%2f@127.0.0.1/a.png",
        "https://127.0.0.1#@pictures.example/",
        "https://127.0.0.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f000001/a.png",
        "https://0x7f.1/a.png",
        "https://0177.0.0.1/a.png",
        "https://127.1/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://[fe80::1%25eth0]/a.png",
        "https://localhost/a.png",
        "https://ⓟictures.example/a.png",
        "https://pictures。example/a.png",
        "https://pictures.example/a b.png",
        "https://pictures.example/a\r\nHost: evil",
        "https://pict\tures.example/a.png",
        "https:///a.png",
        "https://",
        "https://[pictures.example/a.png",
        "https://pictures.example/" + "a" * 5000,
        "",
    ],
)
def test_other_urls_are_refused_without_asking_a_resolver(url: str) -> None:
    def never(host: str) -> list[str]:
        raise AssertionError("resolved")

    with pytest.raises(ForbiddenSource) as caught:
        fetch_image(url, POLICY, resolve=never)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "::1", "0177.0.0.1"])
def test_an_address_is_refused_even_where_the_policy_names_it(host: str) -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=(host,))
    with pytest.raises(ForbiddenSource):
        check_url(f"https://{host}/a.png", policy)


def test_urls_are_off_by_default() -> None:
    with pytest.raises(ForbiddenSource, match="allow_urls"):
        fetch_image(URL, ImagePolicy(), resolve=public)


def test_the_request_is_rebuilt_from_the_parsed_url() -> None:
    target = check_url("HTTPS://PICTURES.example:443/a%20b.png?w=1&h=2#part", POLICY)
    assert target == Target("pictures.example", "/a%20b.png?w=1&h=2")
    assert check_url("https://pictures.example", POLICY).path == "/"


@given(st.text(max_size=40))
def test_any_text_is_refused_or_names_the_allowed_host(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}pictures.example/", f"{URL}{text}"):
        try:
            target = check_url(url, POLICY)
        except ForbiddenSource:
            continue
        assert target.host == "pictures.example"
        assert target.path.startswith("/")


# -- the address ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "168.63.129.16", "192.88.99.1", "3fff::1", "5f00::1", "2001:1::1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.0.1",
        "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
        "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd12:3456::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:93.184.215.14",
        "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
        "2002:7f00:1::", "2001::1", "2001:db8::1", "100::1", "pictures.example", "2130706433",
        "0x7f.1", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(ForbiddenSource, match="not public"):
        check_addresses([address])
    with pytest.raises(ForbiddenSource):  # one such address is enough
        fetch_image(URL, POLICY, resolve=lambda host: [PUBLIC, address])


def test_public_addresses_pass_in_their_order() -> None:
    found = ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", PUBLIC]
    assert check_addresses(found) == tuple(found)


def test_a_host_without_an_address_fails() -> None:
    def unknown(host: str) -> list[str]:
        raise socket.gaierror("no such host")

    for resolve in (unknown, lambda host: []):
        with pytest.raises(FetchFailed):
            fetch_image(URL, POLICY, resolve=resolve)


# -- a real connection ----------------------------------------------------------------------------


@contextmanager
def server(
    answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Serve one thread on a loopback port; yield the port and who connected."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    visits: list[str] = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            visits.append("connected")
            try:
                with context.wrap_socket(connection, True) if context else connection as stream:
                    answer(stream)
            except OSError:
                continue  # the client has gone, which several tests provoke

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], visits
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def reply(head: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    def answer(stream: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += stream.recv(4096)
        seen.append(request.decode())
        stream.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)

    seen.clear()
    return answer


seen: list[str] = []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "2", "-subj", "/CN=pictures.example",
                "-addext", "subjectAltName=DNS:pictures.example",
                "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    return folder


@pytest.fixture
def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    return serving, trusting


def get(port: int, context: ssl.SSLContext, *, host: str = "pictures.example", **kw: Any) -> bytes:
    options: dict[str, Any] = {"deadline": time.monotonic() + 5, "max_bytes": 1000, **kw}
    return download(
        Target(host, "/a.png?w=1"), ["127.0.0.1"], port=port, ssl_context=context, **options
    )


def test_a_loopback_server_is_never_reached() -> None:
    with server(reply("200 OK", b"secret")) as (port, visits):
        policy = ImagePolicy(allow_urls=True, url_hosts=("localhost", "inside.example"))
        for url, addresses in [
            (f"https://localhost:{port}/", ["127.0.0.1"]),
            ("https://localhost/", ["127.0.0.1"]),
            ("https://inside.example/", ["127.0.0.1"]),
            ("https://inside.example/", ["::1"]),
        ]:
            with pytest.raises(ForbiddenSource):
                fetch_image(url, policy, resolve=lambda host, a=addresses: a)  # type: ignore[misc]
        with pytest.raises(ForbiddenSource):  # the system's own resolver
            fetch_image("https://localhost/", policy)
        assert not visits


def test_the_name_is_resolved_once_and_its_address_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    connected: list[Any] = []

    def connect(address: Any, *args: Any, **kwargs: Any) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchFailed, match="could not be reached"):
        fetch_image(URL, POLICY, resolve=lambda host: next(answers))
    assert connected == [(PUBLIC, 443)] * 2  # the first attempt and one more
    assert next(answers) == ["127.0.0.1"]


def test_each_attempt_takes_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[Any] = []

    def connect(address: Any, *args: Any, **kwargs: Any) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchFailed):
        fetch_image(URL, POLICY, resolve=lambda host: [PUBLIC, "1.1.1.1", "8.8.8.8"])
    assert connected == [PUBLIC, "1.1.1.1"]


def test_the_certificate_is_checked_against_the_name(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    serving, trusting = contexts
    with server(reply("200 OK\r\nContent-Length: 3", b"png"), serving) as (port, _):
        assert get(port, trusting) == b"png"
        assert seen[0].startswith("GET /a.png?w=1 HTTP/1.1\r\nHost: pictures.example")
        assert "cookie" not in seen[0].lower()
        assert "accept-encoding: identity\r\n" in seen[0].lower()
        with pytest.raises(FetchFailed):
            get(port, trusting, host="other.example")
        with pytest.raises(FetchFailed):
            get(port, ssl.create_default_context())


@pytest.mark.parametrize(
    ("head", "body", "error"),
    [
        ("200 OK\r\nContent-Length: 5000", b"x" * 5000, ImageTooLarge),
        ("200 OK\r\nConnection: close", b"x" * 5000, ImageTooLarge),
        (
            "200 OK\r\nTransfer-Encoding: chunked",
            b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n",
            ImageTooLarge,
        ),
        ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2", b"xx", FetchFailed),
        ("302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0", b"", FetchFailed),
        ("404 Not Found\r\nContent-Length: 0", b"", FetchFailed),
        ("206 Partial Content\r\nContent-Length: 2", b"xx", FetchFailed),
        ("200 OK\r\nContent-Length: 500", b"cut short", FetchFailed),
        ("nonsense", b"", FetchFailed),
    ],
)
def test_answers_that_are_refused(
    head: str,
    body: bytes,
    error: type[ImageError],
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with server(reply(head, body), contexts[0]) as (port, visits):
        with pytest.raises(error):
            get(port, contexts[1])
        assert len(visits) == 1


def test_a_host_that_dribbles_is_cut_off(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    def dribble(stream: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: " + b"y" * 1000:
            stream.sendall(bytes([byte]))
            time.sleep(0.02)

    with server(dribble, contexts[0]) as (port, _):
        start = time.monotonic()
        with pytest.raises(FetchFailed, match="in time"):
            get(port, contexts[1], deadline=start + 0.4)
        assert time.monotonic() - start < 1.5


def test_a_host_that_says_nothing_is_cut_off() -> None:
    with server(lambda stream: time.sleep(1.0)) as (port, _):
        start = time.monotonic()
        with pytest.raises(FetchFailed):
            get(port, ssl.create_default_context(), deadline=start + 0.3)
        assert time.monotonic() - start < 0.9


def test_the_backend_ignores_the_name() -> None:
    with server(reply("200 OK\r\nContent-Length: 2", b"ok")) as (port, _):
        backend = PinnedBackend(["127.0.0.1"], deadline=time.monotonic() + 5)
        stream = backend.connect_tcp("pictures.example", port)
        stream.write(b"GET / HTTP/1.1\r\n\r\n")
        assert stream.read(100).startswith(b"HTTP/1.1 200")
        stream.close()


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(reply("200 OK")) as (port, visits):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setattr(
            socket, "create_connection", lambda address, *a, **k: (_ for _ in ()).throw(OSError)
        )
        with pytest.raises(FetchFailed):
            fetch_image(URL, POLICY, resolve=public)
        assert not visits


# -- the answer, without a network ----------------------------------------------------------------


@respx.mock
def test_the_body_of_a_good_answer_is_returned() -> None:
    respx.get(URL).mock(return_value=httpx.Response(200, content=b"png"))
    assert fetch_image(URL, POLICY, resolve=public) == b"png"


@respx.mock
@pytest.mark.parametrize("status", [204, 301, 307, 401, 403, 404, 429, 500, 503])
def test_other_states_fail_without_another_request(status: int) -> None:
    asked = respx.get(URL).mock(
        return_value=httpx.Response(status, headers={"Location": "https://pictures.example/b"})
    )
    with pytest.raises(FetchFailed, match="redirects" if status in (301, 307) else str(status)):
        fetch_image(URL, POLICY, resolve=public)
    assert asked.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    "error", [httpcore.ReadTimeout, httpcore.ReadError, httpcore.RemoteProtocolError]
)
def test_errors_of_the_transport_are_typed(error: type[Exception]) -> None:
    respx.get(URL).mock(side_effect=error("broken"))
    with pytest.raises(FetchFailed):
        fetch_image(URL, POLICY, resolve=public)


@respx.mock
def test_a_url_is_fetched_once_per_turn_and_failures_are_counted() -> None:
    asked = respx.get(URL).mock(return_value=httpx.Response(200, content=b"no image"))
    block = {"type": "image", "url": URL}
    policy = POLICY.model_copy(update={"max_images": 2, "overflow": "refuse"})
    turn = read_turn(
        [HumanMessage([block]), HumanMessage([block, block])],
        policy,
        fetch=lambda url, given: fetch_image(url, given, resolve=public),
    )
    assert asked.call_count == 1
    assert [media.reason.partition(":")[0] for media in turn.skipped] == [
        "UnreadableImage",
        "UnreadableImage",
        "ImageTooLarge",
    ]


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpcore", None)  # what a missing package looks like
    with pytest.raises(FetchFailed, match=r"safecode-guard\[remote\]"):
        fetch_image(URL, POLICY, resolve=public)


def test_the_module_is_light() -> None:
    code = "import sys, safecode_guard.turns.fetch as _;"
    code += "print(any(m.startswith('http') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert fetch.RETRIES == 1
