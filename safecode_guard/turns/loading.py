"""Loads the media of a conversation within its limits: the newest first, until enough are shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from safecode_guard.errors import ImageError, ImageTooLarge, TurnTimeout
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns.found import Media
from safecode_guard.turns.images import CheckedImage, load
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.sources import Fetch


@dataclass(frozen=True, eq=False)
class Place:
    """A medium, and where in the conversation it stands."""

    media: Media
    message_index: int
    block_index: int
    shown: bool = True
    """The model is shown it; False: it is only judged."""


Outcome = list[CheckedImage] | ImageError | None
"""The images of a medium, why there are none, or None: it is left out."""


@dataclass
class Loader:
    """Loads the media of one conversation.

    At most ``max_images`` are attempted, failures included, so that a conversation of dead links
    does not cost a time-out for each. All frames of an animation are taken, or none.
    """

    policy: ImagePolicy
    fetch: Fetch
    pictures: PictureStore | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        self._fetched: dict[str, bytes | ImageError] = {}
        if self._drops:  # so that one animation always fits
            frames = min(self.policy.max_frames, self.policy.max_images)
            self.policy = self.policy.model_copy(update={"max_frames": frames})

    def load(self, places: Sequence[Place]) -> Mapping[Place, Outcome]:
        """Return what became of each medium, the newest being attempted first if some are dropped.

        Raises:
            TurnTimeout: If the deadline has passed.
        """
        order: Iterable[Place] = reversed(places) if self._drops else places
        most, attempts, loaded = self.policy.max_images, 0, 0
        outcomes: dict[Place, Outcome] = {}
        for place in order:
            if max(attempts, loaded) >= most:
                outcomes[place] = self._beyond(place)
                continue
            attempts += 1
            outcome: Outcome = self._attempt(place)
            if isinstance(outcome, list) and loaded + len(outcome) > most:
                outcome = self._beyond(place)
                attempts = most if self._drops else attempts  # nothing older is shown instead
            loaded += len(outcome) if isinstance(outcome, list) else 0
            outcomes[place] = outcome
        return outcomes

    @property
    def _drops(self) -> bool:
        return self.policy.overflow == "drop_oldest"

    def _attempt(self, place: Place) -> list[CheckedImage] | ImageError:
        self._check_time()
        try:
            return load(
                place.media,
                self.policy,
                message_index=place.message_index,
                block_index=place.block_index,
                fetch=self._fetch_once,
                pictures=self.pictures,
                deadline=self.deadline,
            )
        except ImageError as error:
            self._check_time()  # what ran out may have been the turn's time
            return error

    def _fetch_once(self, url: str, policy: ImagePolicy) -> bytes:
        if url not in self._fetched:
            try:
                self._fetched[url] = self.fetch(url, policy)
            except ImageError as error:
                self._fetched[url] = error
        found = self._fetched[url]
        if isinstance(found, ImageError):
            raise found
        return found

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise TurnTimeout(
                "The turn's deadline passed while its images were read.",
                hint="Send fewer or smaller images, or raise deadline_s in the policy.",
            )

    def _beyond(self, place: Place) -> ImageError | None:
        if self._drops:
            return None
        return ImageTooLarge(
            f"The turn has more than {self.policy.max_images} images.",
            hint="Send fewer, trim the history, or raise images.max_images in the policy.",
            message_index=place.message_index,
            block_index=place.block_index,
        )
