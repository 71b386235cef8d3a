"""A model behind a vLLM server: its tokens and family are known here, its weights are there."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from PIL import Image

from safecode_guard.engines.transformers.loading import load_reading
from safecode_guard.engines.transformers.rendering import Renderer
from safecode_guard.engines.transformers.sizes import working_size
from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from safecode_guard.engines.vllm.client import Address, Client, require_httpx
from safecode_guard.engines.vllm.guided import Marks
from safecode_guard.engines.vllm.probe import probe
from safecode_guard.engines.vllm.requests import Writer
from safecode_guard.engines.vllm.session import VLLMSession
from safecode_guard.errors import UnsupportedFamily
from safecode_guard.judges.loops import LoopThread
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Abilities, Sampling, Tool
from safecode_guard.steering.pairs.covering import Coverage
from safecode_guard.steering.restore import RESTORABLE
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    import httpx

RANK: Final = "X-data-parallel-rank"


class VLLMEngine:
    """A model of a vLLM server as an `Engine`.

    Its connections live on an event loop in a thread of its own, so that threads and all event
    loops share them. The server is asked for nothing before the first turn.

    Example:
        >>> engine = VLLMEngine.load(                                    # doctest: +SKIP
        ...     Address("http://127.0.0.1:8000/v1"), model="Qwen/Qwen2.5-VL-7B-Instruct"
        ... )
        >>> sorted(engine.abilities.records)                             # doctest: +SKIP
        ['safecode']
    """

    def __init__(
        self,
        address: Address,
        *,
        model: str,
        config: Any,
        processor: Any,
        family: Family,
        eos_ids: Sequence[int] = (),
        replicas: int = 1,
        concurrency: int = 32,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Take the server, and what is read of the model here.

        Args:
            address: Of the server.
            model: The name under which it has the model.
            config: The model's.
            processor: Its processor; the server must render and tokenise by the same files.
            family: Its record.
            eos_ids: Tokens that end an answer; none: as the tokenizer says.
            replicas: The server's ``--data-parallel-size``; both halves of a pair go to one.
            concurrency: Questions and answers under way at a time; a guided answer is two requests.
            transport: Stands in for the network.

        Raises:
            PolicyError: If httpx is not installed.
            UnsupportedFamily: If no two tokens can mark a pair's end.
        """
        require_httpx()
        self.family = family
        self.processor = processor
        size = int(config.get_text_config().vocab_size)
        self.vocabulary = TokenizerVocabulary(processor.tokenizer, size=size, eos_ids=eos_ids)
        self.coverage = Coverage(self.vocabulary)
        self.marks = marks_of(processor, self.vocabulary)
        self.writer = Writer(model, Renderer.of(processor, family).neutralise)
        self.replicas = replicas
        self.id = f"vllm:{Path(model).name}@{self.vocabulary.id[:12]}"
        self._address, self._transport = address, transport
        self._concurrency = concurrency
        self._proven: asyncio.Task[None] | None = None
        self._loop: LoopThread | None = None
        self._lock = threading.Lock()
        self.client: Client
        """The way to the server; there from the first use of `loop` on."""
        self.slots: asyncio.Semaphore
        """Places for questions and answers under way."""

    @classmethod
    def load(
        cls,
        address: Address,
        *,
        model: str,
        files: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        replicas: int = 1,
        concurrency: int = 32,
    ) -> Self:
        """Load what is read of a model here, and none of its weights.

        Args:
            address: Of the server.
            model: The name under which the server has it.
            files: Directory or hub name of its tokenizer and processor; None: the model's name.
            local_files_only: Never look at the hub.
            revision: Commit, tag or branch on the hub.
            replicas: The server's ``--data-parallel-size``.
            concurrency: Questions and answers under way at a time.

        Raises:
            UnsupportedFamily: If the family cannot be read here; says what is missing.
        """
        reading = load_reading(
            str(files or model), local_files_only=local_files_only, revision=revision
        )
        return cls(
            address,
            model=model,
            config=reading.config,
            processor=reading.processor,
            family=reading.family,
            eos_ids=reading.eos_ids,
            replicas=replicas,
            concurrency=concurrency,
        )

    @property
    def abilities(self) -> Abilities:
        """Scores of labels, and SafeCoDe by pairs of requests; no logits, no states."""
        return Abilities(records=RESTORABLE, label_scores=True, takes_files=True)

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> VLLMSession:
        """Return a session: requests to the server."""
        return VLLMSession(self, tools)

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Return one key for all turns with the same tools: a server batches by itself."""
        return json.dumps([dict(tool) for tool in tools], sort_keys=True, default=str)

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return (width, height) to which the model's preprocessing resizes an image."""
        return working_size(self.processor, self.family, image)

    def probe(self) -> None:
        """Prove, by a test pair, that the server steers; once it has, it is not asked again.

        Raises:
            SteeringUnproven: If it does not.
            ModelUnavailable: If it cannot be reached, or refuses.
        """
        self.loop.run(self.require_plugin)

    def close(self) -> None:
        """Close all connections; what is under way ends. Asked again, the engine connects again."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop(self.client.close)

    @property
    def loop(self) -> LoopThread:
        """Where the connections live; another one after `close`, and in a process that forked."""
        with self._lock:
            if self._loop is None or not self._loop.alive:
                self._loop, self._proven = LoopThread("safecode-vllm"), None
                self.client = Client(self._address, transport=self._transport)
                self.slots = asyncio.Semaphore(self._concurrency)
            return self._loop

    # -- on the engine's loop -----------------------------------------------------------------

    async def require_plugin(self) -> None:
        """Prove that the server steers, as `probe` does; all who ask at once wait for one proof."""
        if self._proven is None or (self._proven.done() and _failed(self._proven)):
            self._proven = asyncio.create_task(probe(self))
        await asyncio.shield(self._proven)

    def pinned(self, place: int) -> Mapping[str, str] | None:
        """Return the header that sends requests of one place to one replica."""
        return {RANK: str(place % self.replicas)} if self.replicas > 1 else None


def marks_of(processor: Any, vocabulary: TokenizerVocabulary) -> Marks:
    """Return two tokens that the model itself never writes: padding, unknown, pictures, beginning.

    Raises:
        UnsupportedFamily: If there are no two such tokens within the model's logits.
    """
    tokenizer = processor.tokenizer
    named = ("pad_token_id", "unk_token_id", "bos_token_id", "image_token_id")
    found = [getattr(one, name, None) for name in named for one in (tokenizer, processor)]
    found += sorted(vocabulary.special_ids)
    fitting = [
        token
        for token in dict.fromkeys(found)
        if isinstance(token, int)
        and 0 <= token < vocabulary.size
        and token in vocabulary.special_ids
        and token not in vocabulary.eos_ids
    ]
    if len(fitting) < 2:
        raise UnsupportedFamily(
            "The model has no two special tokens that can mark the end of a pair.",
            hint="Guard a ChatTransformers instead.",
        )
    return Marks(*fitting[:2])


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
