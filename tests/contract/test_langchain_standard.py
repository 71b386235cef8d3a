"""LangChain's standard suites, for the chat model and for the guard around it.

They run on the embedded model, which is tiny: what it cannot do is marked with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.server import make_app
from safecode_guard.testing import serving
from safecode_guard.tiny.load import weights_path
from tests.messages import png

TINY = str(weights_path("chat"))


class Supports:
    """What both models support."""

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    returns_usage_metadata = True


class ModelSubject(Supports):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTransformers

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": TINY, "local_files_only": True}


class GuardSubject(Supports):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return SafeCoDeGuard

    @property
    def chat_model_params(self) -> dict[str, Any]:
        inner = ChatTransformers(
            model=TINY, local_files_only=True, **self.standard_chat_model_params
        )
        return {"model": inner}


class TestChatTransformersUnit(ModelSubject, ChatModelUnitTests):
    pass


class TestGuardUnit(GuardSubject, ChatModelUnitTests):
    pass


class Downloads:
    """Serves the pictures that the suite downloads; any other address is an error."""

    @pytest.fixture(autouse=True)
    def pictures(self) -> Iterator[None]:
        with respx.mock(assert_all_called=False) as router:
            picture = httpx.Response(200, content=png(), headers={"content-type": "image/png"})
            router.route(host="127.0.0.1").pass_through()
            router.get(url=re.compile(r".*")).mock(return_value=picture)
            yield


COPIES = "a model of 1.65 M parameters cannot copy {} from the question into a tool call"
CHOOSES = "a model of 1.65 M parameters cannot choose an unknown tool of its own accord"


class Integration(Downloads, ChatModelIntegrationTests):
    """What takes a larger model; the forms themselves are tested with forced tool calls."""

    @pytest.mark.xfail(reason=COPIES.format("a number"), strict=True)
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason=COPIES.format("a number"), strict=True)
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason=COPIES.format("Chinese text"), strict=True)
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **options: Any) -> None:
        super().test_unicode_tool_call_integration(model, **options)

    @pytest.mark.xfail(reason=CHOOSES, strict=True)
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)


class TestChatTransformersIntegration(ModelSubject, Integration):
    pass


class TestGuardIntegration(GuardSubject, Integration):
    pass


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema")
class TestServerIntegration(Integration):
    """The guard behind its server, as LangChain's own client of OpenAI's API meets it."""

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_image_inputs = True
    returns_usage_metadata = True

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def served(cls) -> Iterator[None]:
        guard = SafeCoDeGuard(model=ChatTransformers.tiny(temperature=0))
        with serving(make_app(guard, "tiny")) as url:
            cls.url = f"{url}/v1"
            yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        own_loop = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0))
        return {
            "base_url": self.url,
            "model": "tiny",
            "api_key": "none",
            "max_retries": 0,
            "stream_usage": True,
            "http_async_client": own_loop,
        }
