"""One prompt on a server, and answers to it: from its beginning, or from tokens on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from safecode_guard.engines.vllm.client import COMPLETIONS, GENERATE, RENDER, Client
from safecode_guard.engines.vllm.replies import Reply, piece_of, whole_reply
from safecode_guard.engines.vllm.requests import Fields
from safecode_guard.errors import ModelUnavailable
from safecode_guard.steering.pairs.spec import PairSpec

_FIELD: Final = "safecode"
"""Of a request's extra arguments, where the plug-in looks for the spec."""


class Prompt:
    """A conversation as a server renders it."""

    def __init__(
        self,
        client: Client,
        conversation: Callable[[], Fields],
        *,
        tools: bool = False,
        forced: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the conversation's fields, and whether the server reads calls out of answers."""
        self._client = client
        self._conversation = conversation
        self.tools = tools
        self._forced = forced
        self._headers = headers
        self._rendered: Any = None

    async def answer(
        self,
        fields: Fields,
        spec: PairSpec | None = None,
        *,
        written: Sequence[int] = (),
        live: bool = False,
    ) -> AsyncGenerator[Reply]:
        """Yield what follows the tokens that are written already; the last piece has a finish.

        Args:
            fields: How the tokens are drawn.
            spec: Of the pair that the request is a half of.
            written: Tokens of the answer from which it goes on, exactly.
            live: Yield each token as it comes; what goes on from tokens comes in one piece.

        Raises:
            ModelUnavailable: If the server cannot be reached, refuses, or is too slow.
            ModelError: If its reply cannot be read.
        """
        extra = {} if spec is None else {_FIELD: spec.to_text()}
        if written:
            yield await self._continued(fields, extra, written)
        elif live and not self.tools:
            async with aclosing(self._streamed(fields, extra)) as pieces:
                async for piece in pieces:
                    yield piece
        else:
            data = await self._client.post(
                COMPLETIONS, lambda: self._body(fields, extra), headers=self._headers
            )
            yield whole_reply(data, tools=self.tools, forced=self._forced)

    def _body(self, fields: Fields, extra: Fields, **more: Any) -> Fields:
        xargs = {"vllm_xargs": extra} if extra else {}
        return self._conversation() | fields | xargs | {"return_token_ids": True} | more

    async def _streamed(self, fields: Fields, extra: Fields) -> AsyncGenerator[Reply]:
        events = self._client.stream(
            COMPLETIONS,
            lambda: self._body(fields, extra, stream=True, stream_options={"include_usage": True}),
            headers=self._headers,
        )
        last: Reply | None = None
        async with aclosing(events):
            async for event in events:
                piece = piece_of(event)
                if piece.finish is not None:  # what the prompt took is told after it
                    last = piece
                elif last is not None:
                    last = Reply(last.tokens, last.finish, piece.prompt_tokens)
                else:
                    yield piece
        if last is None:
            raise ModelUnavailable("The server broke an answer off.", hint="Look into its log.")
        yield last

    async def _continued(self, fields: Fields, extra: Fields, written: Sequence[int]) -> Reply:
        try:
            if self._rendered is None:
                self._rendered = await self._client.post(
                    RENDER, self._conversation, headers=self._headers
                )
            rendered = self._rendered
            body = {
                "model": rendered["model"],
                "token_ids": [*rendered["token_ids"], *written],
                "features": rendered["features"],
                "output_mode": "tokens",
                "sampling_params": fields | ({"extra_args": extra} if extra else {}),
            }
            return whole_reply(
                await self._client.post(GENERATE, lambda: body, headers=self._headers)
            )
        except ModelUnavailable as error:
            if error.status != 404:
                raise
            raise ModelUnavailable(
                "The server cannot go on from the tokens of an answer.",
                hint="Start it with --enable-scale-out.",
                status=404,
            ) from error
