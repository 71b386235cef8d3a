from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import respx

from safecode_guard.errors import JudgeError, JudgeTimeout, JudgeUnavailable, PolicyError
from safecode_guard.judges import endpoint
from safecode_guard.judges.endpoint import Endpoint, _retry_after
from safecode_guard.judges.http import HttpJudge
from tests.unit.judges.endpoints import KEY, PATH, answer, config, text


def request() -> dict[str, str]:
    return {"model": "m"}


FINE = answer(text("safe"))


async def asked(times: int = 1, *, deadline: float | None = None, **fields: Any) -> Any:
    """Ask an endpoint, and return its last reply or error."""
    server = Endpoint(config(**fields))
    last: Any = None
    try:
        for _ in range(times):
            try:
                last = await server.complete(request, deadline=deadline)
            except JudgeError as error:
                last = error
    finally:
        await server.close()
    return last


@pytest.fixture
def route() -> Any:
    with respx.mock(assert_all_called=False) as router:
        yield router.post(PATH)


async def test_the_reply_comes_as_it_is_and_the_key_goes_in_a_header(route: Any) -> None:
    route.return_value = FINE
    assert await asked(api_key=KEY) == FINE.content
    sent = route.calls.last.request
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.content == b'{"model":"m"}'


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(route: Any, status: int) -> None:
    route.side_effect = [answer({}, status), httpx.ConnectError("refused"), FINE]
    assert await asked(retries=2) == FINE.content
    assert route.call_count == 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422, 501])
async def test_what_will_not_pass_is_not(route: Any, status: int) -> None:
    route.return_value = answer({}, status, location="http://elsewhere.test/")
    error = await asked(retries=2)
    assert isinstance(error, JudgeUnavailable)
    assert error.status == status
    assert str(status) in str(error.reason)
    assert route.call_count == 1


async def test_nor_is_what_took_too_long_already(route: Any) -> None:
    route.side_effect = httpx.ReadTimeout("slow")
    assert isinstance(await asked(retries=2), JudgeTimeout)
    assert route.call_count == 1


async def test_it_waits_as_long_as_it_is_told_to(route: Any) -> None:
    route.side_effect = [answer({}, 429, **{"retry-after": "0.3"}), FINE]
    started = time.monotonic()
    assert await asked(retries=1) == FINE.content
    assert 0.3 <= time.monotonic() - started < 1.5


async def test_but_not_beyond_the_deadline(route: Any) -> None:
    route.side_effect = [answer({}, 429, **{"retry-after": "30"}), FINE]
    started = time.monotonic()
    error = await asked(retries=1, deadline=started + 5)
    assert time.monotonic() - started < 1
    assert error.status == 429


def test_a_retry_after_is_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 15 < (_retry_after(soon) or 0) <= 20
    assert _retry_after("7") == 7
    assert _retry_after("-3") == 0
    assert _retry_after("1e9") == 60
    assert _retry_after("nan") == 0
    assert [_retry_after(text) for text in ("soon", "Tue", "", None)] == [None] * 4


async def test_a_silent_server_is_given_up_at_the_deadline(route: Any) -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return FINE

    route.side_effect = silent
    started = time.monotonic()
    assert isinstance(await asked(deadline=started + 0.2), JudgeTimeout)
    assert time.monotonic() - started < 1


async def test_one_that_fails_again_and_again_is_left_alone_and_tried_later(route: Any) -> None:
    route.return_value = answer({}, 503)
    server = Endpoint(config(breaker_failures=3, breaker_s=0.2))

    async def reason() -> str | None:
        with pytest.raises(JudgeUnavailable) as caught:
            await server.complete(request, deadline=None)
        return caught.value.reason

    told = [await reason() for _ in range(5)]
    assert route.call_count == 3
    assert ["left alone" in str(one) for one in told] == [False, False, False, True, True]
    await asyncio.sleep(0.25)
    route.return_value = FINE
    assert await server.complete(request, deadline=None) == FINE.content
    await server.close()


@pytest.mark.parametrize("status", [401, 404, 422, 429])
async def test_one_that_refuses_is_not_taken_for_broken(route: Any, status: int) -> None:
    route.return_value = answer({}, status)
    await asked(times=6, breaker_failures=3)
    assert route.call_count == 6


async def test_nor_is_one_whose_callers_go_away(route: Any) -> None:
    begun = 0

    async def silent(request: httpx.Request) -> httpx.Response:
        nonlocal begun
        begun += 1
        await asyncio.sleep(30)
        return FINE

    route.side_effect = silent
    server = Endpoint(config(breaker_failures=2, timeout_s=None))
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.complete(request, deadline=None), 0.05)
    assert begun == 4
    await server.close()


async def test_only_so_many_requests_are_under_way(route: Any) -> None:
    under_way = most = 0

    async def counted(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return FINE

    route.side_effect = counted
    server = Endpoint(config(concurrency=3))
    await asyncio.gather(*(server.complete(request, deadline=None) for _ in range(12)))
    await server.close()
    assert most == 3


async def test_requests_and_replies_are_bounded(route: Any) -> None:
    route.return_value = answer(text("safe" * 1000))
    huge = await asked(max_response_bytes=1000)
    assert huge.reason == "the reply is over judge.max_response_bytes"
    large = await asked(max_request_bytes=5)
    assert large.reason == "the request is over judge.max_request_bytes"
    assert route.call_count == 1


async def test_a_compressed_reply_is_refused_unread(route: Any) -> None:
    headers = {"content-encoding": "gzip"}
    route.return_value = httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"\x1f\x8b"))
    assert "compressed" in str(await asked())


async def test_certificates_of_ones_own_must_be_there(tmp_path: Any) -> None:
    with pytest.raises(PolicyError, match=r"absent\.pem"):
        HttpJudge(config(ca_file=tmp_path / "absent.pem"))
    (tmp_path / "odd.pem").write_text("no certificate")
    with pytest.raises(JudgeError, match=r"odd\.pem"):
        Endpoint(config(ca_file=tmp_path / "odd.pem"))


def test_a_missing_extra_is_told_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "find_spec", lambda name: None if name == "purgatory" else 1)
    with pytest.raises(PolicyError, match=r"needs purgatory.*\[remote\]"):
        HttpJudge(config())


async def test_a_real_server_that_drips_even_its_headers_is_given_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    started = time.monotonic()
    error = await asked(deadline=started + 0.3, url=f"http://127.0.0.1:{port}/v1")
    assert isinstance(error, JudgeTimeout)
    assert time.monotonic() - started < 1.5
    server.close()
