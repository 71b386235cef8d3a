"""From LangChain messages of any class and provider to a `Turn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from safecode_guard.errors import ImageError, TemplateError
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.drafts import Draft, Unjudgeable, is_removal, look_through
from safecode_guard.turns.fetch import fetch_image
from safecode_guard.turns.found import Opaque
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.loading import Loader, Outcome, Place
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.sources import Fetch
from safecode_guard.turns.turn import Carried, ImagePart, Part, TextPart, Turn, TurnMessage
from safecode_guard.verdict import SkippedMedia

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LEFT_OUT: Final = "[an earlier picture is left out]"
"""What the model reads in the place of a picture beyond the policy's limit."""


def read_turn(
    messages: Sequence[BaseMessage],
    policy: ImagePolicy | None = None,
    *,
    strict: bool = False,
    fetch: Fetch = fetch_image,
    pictures: PictureStore | None = None,
    deadline: float | None = None,
) -> Turn:
    """Read LangChain messages of any class and provider into a turn.

    Images are looked for in the raw content of every message, in tool results, in the text that
    tools return, and in their artifacts. What a provider needs back from its own earlier answers
    is kept apart, for `rebuild.rebuild`.

    Args:
        messages: The conversation, oldest first.
        policy: Limits and allowed sources of images.
        strict: Raise for the first medium that cannot be judged, instead of listing it in
            ``Turn.skipped``.
        fetch: Fetches the https URLs that the policy allows.
        pictures: Keeps decoded images from one reading to the next.
        deadline: When to give up, in seconds of ``time.monotonic``.

    Raises:
        TemplateError: If there is no message, or one with a role that no model knows.
        UnreadableCall: If an earlier tool call has no name, or arguments that are no data.
        ImageError: With ``strict``, for the first medium that cannot be judged.
        TurnTimeout: If the deadline has passed.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> read_turn([HumanMessage("How do I run faster here?")]).query
        'How do I run faster here?'
    """
    policy = policy or ImagePolicy()
    drafts = [
        look_through(message, index, pictures)
        for index, message in enumerate(messages)
        if not is_removal(message)
    ]
    if not drafts:
        raise TemplateError("The conversation is empty.", hint="Send at least one message.")
    places = [piece for each in drafts for piece in each.pieces if isinstance(piece, Place)]
    outcomes = Loader(policy, fetch, pictures, deadline).load(places)
    layout = _Layout(outcomes, policy.max_images, strict=strict)
    read = tuple(layout.message(each) for each in drafts)
    return Turn(read, tuple(layout.images), tuple(layout.skipped), tuple(layout.left_out))


@dataclass
class _Layout:
    """Lays out messages with what became of their media, in the order of the conversation."""

    outcomes: Mapping[Place, Outcome]
    limit: int
    strict: bool
    images: list[CheckedImage] = field(default_factory=list)
    skipped: list[SkippedMedia] = field(default_factory=list)
    left_out: list[SkippedMedia] = field(default_factory=list)

    def message(self, draft: Draft) -> TurnMessage:
        """Return a message; its images and what was skipped of it are added to the lists."""
        parts: list[Part] = []
        unshown: list[int] = []
        carried: list[Carried] = []
        for piece in draft.pieces:
            if isinstance(piece, Place):
                placed = self._placed(piece)
                if piece.shown:
                    parts += placed
                else:
                    unshown += [part.index for part in placed if isinstance(part, ImagePart)]
            elif isinstance(piece, Unjudgeable):
                self._skip(piece, piece.error, piece.refused.kind)
            elif isinstance(piece, Opaque):
                carried.append(Carried(piece.block, len(parts)))
            else:
                if piece.block is not None:
                    carried.append(Carried(piece.block, len(parts), covers=1))
                parts.append(TextPart(piece.text))
        return TurnMessage(
            role=draft.role,
            parts=tuple(parts),
            tool_calls=draft.calls,
            tool_call_id=draft.tool_call_id,
            name=draft.name,
            unshown=tuple(unshown),
            state=replace(draft.state, carried=tuple(carried)),
        )

    def _placed(self, place: Place) -> list[Part]:
        """Return the parts that a medium became, after noting what became of it."""
        outcome = self.outcomes[place]
        if outcome is None:
            self.left_out.append(_left_out(place, self.limit))
            return [TextPart(LEFT_OUT)]
        if isinstance(outcome, ImageError):
            self._skip(place, outcome, "image")
            return []
        first = len(self.images)
        self.images += outcome
        return [ImagePart(first + offset) for offset in range(len(outcome))]

    def _skip(self, place: Place | Unjudgeable, error: ImageError, kind: str) -> None:
        if self.strict:
            raise error
        self.skipped.append(
            SkippedMedia(
                message_index=place.message_index,
                block_index=place.block_index,
                kind=kind,
                reason=f"{type(error).__name__}: {error}",
            )
        )


def _left_out(place: Place, limit: int) -> SkippedMedia:
    return SkippedMedia(
        message_index=place.message_index,
        block_index=place.block_index,
        kind="image",
        reason=f"The turn has more than {limit} images (images.max_images); the oldest go first.",
    )
