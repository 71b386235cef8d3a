"""What a server is sent: the conversation, how tokens are drawn, and how they are steered."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from safecode_guard.engines.transformers.rendering import map_strings
from safecode_guard.errors import UnsupportedGeneration
from safecode_guard.models.protocol import Sampling, Tool
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.turns.turn import ImagePart, Turn, TurnMessage

MOST_SCORES: Final = 128
"""Tokens whose scores vLLM gives in one answer (its ``MAX_LOGPROB_TOKEN_IDS``)."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Writer:
    """Writes requests for one model of a server.

    What users and tools write is broken up where it spells a control token, as in process: the
    server's tokenizer would read it as one.
    """

    model: str
    neutralise: Callable[[str], str]

    def conversation(self, turn: Turn, tools: Sequence[Tool] = (), choice: Any = None) -> Fields:
        """Return the fields that make the prompt; pictures are sent as the files that were judged.

        Args:
            turn: The conversation.
            tools: Tools on offer.
            choice: Which must be called, as OpenAI says it; None: the model chooses.
        """
        fields: Fields = {
            "model": self.model,
            "messages": [self._message(message, turn) for message in turn.messages],
        }
        if tools:
            fields["tools"] = [map_strings(dict(tool), self.neutralise) for tool in tools]
            fields["tool_choice"] = choice or "auto"
        return fields

    def _message(self, message: TurnMessage, turn: Turn) -> Fields:
        fields: Fields = {"role": message.role, "content": self._content(message, turn)}
        if message.tool_calls:
            fields["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": self.neutralise(call.name),
                        "arguments": json.dumps(map_strings(call.arguments, self.neutralise)),
                    },
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            fields["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            fields["name"] = self.neutralise(message.name)
        return fields

    def _content(self, message: TurnMessage, turn: Turn) -> str | list[Fields]:
        if not message.image_indices:
            return self.neutralise(message.text)
        return [
            _picture(turn, part.index)
            if isinstance(part, ImagePart)
            else {"type": "text", "text": self.neutralise(part.text)}
            for part in message.parts
        ]


def plain(sampling: Sampling, *, budget: int) -> Fields:
    """Return how the tokens of an unsteered answer are drawn; what is None the server decides."""
    temperature = sampling.temperature
    if sampling.do_sample is False or temperature == 0:
        temperature = 0.0
    given = {
        "temperature": temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    drawn = {name: value for name, value in given.items() if value is not None}
    return drawn | {"max_tokens": budget}


def greedy(sampling: Sampling, *, budget: int) -> Fields:
    """Return how a guided answer is drawn: greedily, whatever the server's defaults are.

    Raises:
        UnsupportedGeneration: If the caller asks for anything else.
    """
    drawn = sampling.do_sample is not False and sampling.temperature != 0
    if drawn or sampling.repetition_penalty not in (None, 1.0):
        raise UnsupportedGeneration(
            "A server steers answers that are decoded greedily, without a repetition penalty.",
            hint="Set temperature=0, or guard a ChatTransformers.",
        )
    return {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": budget}


def of_main(fields: Fields, spec: PairSpec) -> Fields:
    """Return how the main of a pair is drawn: as the answer is, up to where the pair parts."""
    return fields | {"stop_token_ids": [spec.halt]}


def of_twin(fields: Fields, spec: PairSpec) -> Fields:
    """Return how the twin of a pair is drawn: through the answer's end, up to the seal."""
    return fields | {"stop_token_ids": [spec.halt, spec.seal], "ignore_eos": True}


def label_fields(tokens: Sequence[int]) -> Fields:
    """Return what asks for the scores of some tokens at the place of the first."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": len(tokens),
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }


def _picture(turn: Turn, index: int) -> Fields:
    data, mime = turn.images[index].file
    url = f"data:{mime};base64,{b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
