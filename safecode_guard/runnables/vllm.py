"""`ChatVLLM`: a vision-language model behind a vLLM server as a LangChain chat model."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr

from safecode_guard.errors import ConstraintError
from safecode_guard.models.protocol import Engine
from safecode_guard.output.request import Maker, OutputForm
from safecode_guard.runnables.vision_model import ChatVisionModel


class ChatVLLM(ChatVisionModel):
    """A vision-language model of a vLLM server as a LangChain chat model.

    A `SafeCoDeGuard` around it judges on the same server, by the scores of labels, and steers by
    pairs of requests, which the server must run with the plug-in ``safecode-guard-vllm``; where
    nothing proves that it did, `SteeringUnproven` is raised and nothing is let out. Guided answers
    are decoded greedily. Tools and structured output are the server's own.

    The tokenizer and the processor are read here, from ``files``; no weights are.

    Example:
        >>> where = "http://127.0.0.1:8000/v1"
        >>> model = ChatVLLM(base_url=where, model="Qwen/Qwen2.5-VL-7B-Instruct")
        >>> SafeCoDeGuard(model=model).invoke(messages)                  # doctest: +SKIP
    """

    base_url: str
    """The server's, such as ``http://127.0.0.1:8000/v1``."""
    api_key: SecretStr | None = None
    files: str | None = None
    """Directory or hub name of the model's tokenizer and processor, as the server has them; None:
    the model's name."""
    local_files_only: bool = False
    revision: str | None = None
    data_parallel_size: int = Field(default=1, ge=1)
    """The server's; both halves of a pair are sent to one replica."""
    timeout: float = Field(default=120.0, gt=0, alias="request_timeout")
    """Seconds of one request, from its sending to its last byte."""
    connect_timeout: float = Field(default=5.0, gt=0)
    temperature: float | None = Field(default=0.0, ge=0)
    """0 decodes greedily, and guided answers have to be; None: as the server is configured."""
    max_active: int = Field(default=32, gt=0)
    """Turns that may have requests under way at a time; a guided one has two."""
    max_waiting: int = Field(default=256, ge=0)

    def probe(self) -> None:
        """Prove, by a test pair, that the server steers; otherwise the first guided turn does so.

        Raises:
            SteeringUnproven: If it does not.
            ModelUnavailable: If it cannot be reached, or refuses.
        """
        from safecode_guard.engines.vllm.engine import VLLMEngine

        engine = self.engine
        assert isinstance(engine, VLLMEngine)
        engine.probe()

    def _open(self) -> Engine:
        from safecode_guard.engines.vllm.client import Address
        from safecode_guard.engines.vllm.engine import VLLMEngine

        return VLLMEngine.load(
            Address(
                self.base_url,
                self.api_key.get_secret_value() if self.api_key else None,
                timeout_s=self.timeout,
                connect_timeout_s=self.connect_timeout,
            ),
            model=self.model_name,
            files=self.files,
            local_files_only=self.local_files_only,
            revision=self.revision,
            replicas=self.data_parallel_size,
            concurrency=self.max_active,
        )

    def grammars(self, form: OutputForm) -> tuple[Maker | None, Maker | None]:
        """Return none: the server holds answers to their forms.

        Raises:
            ConstraintError: If the form is to have a refusal branch.
        """
        if form.forced and form.allow_refusal:
            raise ConstraintError(
                "A server's grammar has no refusal branch.",
                hint="Leave allow_refusal out: an unsafe turn is then blocked.",
            )
        return None, None

    def passed(self, form: OutputForm) -> dict[str, Any]:
        """Return what the server is told of an answer's form."""
        passed: dict[str, Any] = {}
        if form.schema is not None:
            schema = {"name": "answer", "schema": dict(form.schema), "strict": True}
            passed["response_format"] = {"type": "json_schema", "json_schema": schema}
        if form.choice is not None:
            passed["tool_choice"] = (
                "required"
                if form.choice == "any"
                else {"type": "function", "function": {"name": form.choice}}
            )
        return passed

    @property
    def _llm_type(self) -> str:
        return "safecode-guard-vllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model_name", "base_url", "files", "revision", "temperature", "top_p", "top_k")
        more = ("repetition_penalty", "seed", "max_tokens", "stop")
        return {name: getattr(self, name) for name in (*names, *more)} | {
            "images": self.images.model_dump(mode="json"),
        }
