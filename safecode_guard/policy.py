"""The policy: what may be looked at, who judges, and what follows from a judgement.

A policy is plain data: frozen, strict about unknown keys, and identified by a digest that goes
into every verdict. Loading it from files and the environment is `safecode_guard.settings`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from safecode_guard.errors import PolicyError, listed
from safecode_guard.taxonomy import CATEGORIES, STAGES, Action, Category, Label, Stage

PresetName = Literal["balanced", "strict", "permissive"]
Recipe = Literal["guarded", "paper", "reference"]
PREFIX_CACHE_BYTES: Final = 1_000_000_000
Probability = Annotated[float, Field(ge=0, le=1)]


class Table(dict[Any, Any]):
    """A table of a policy: read like any dict, and frozen like the policy."""

    def _frozen(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a policy is frozen: make another with Policy.updated")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = _frozen
    pop = popitem = clear = _frozen

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


class Part(BaseModel):
    """A part of a policy: frozen, and strict about keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a key may be part of it
    )


class ImagePolicy(Part):
    """Which images are looked at, and within what limits."""

    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    """Pillow format names that may be decoded; nothing else is tried."""
    max_bytes: int = Field(default=20_000_000, gt=0)
    """Encoded size of one image."""
    max_pixels: int = Field(default=50_000_000, gt=0)
    """Width times height of one image, checked before its pixels are decoded."""
    max_images: int = Field(default=32, gt=0)
    """Images in one turn, history included, that the model is shown."""
    overflow: Literal["drop_oldest", "refuse"] = "drop_oldest"
    """Beyond that: leave the oldest out, with a note in their place, or refuse the turn unseen."""
    decode_timeout_s: float = Field(default=5.0, gt=0)
    """Time to decode one image; a deadline of the turn may leave less."""
    cache_bytes: int = Field(default=256_000_000, ge=0)
    """Decoded images kept in memory, with the bytes they came from, by their sha256; 0: none."""
    animated: Literal["reject", "sample"] = "sample"
    """Animated files: refuse them, or judge frames sampled evenly over their length."""
    max_frames: int = Field(default=4, gt=0)
    """Frames judged of an animated file, each of them an image of the turn."""
    allow_urls: bool = False
    """Fetch https images (needs the extra ``remote``)."""
    url_hosts: tuple[str, ...] = ()
    """Hosts that may be fetched from, exact names; empty with ``allow_urls`` is refused."""
    url_timeout_s: float = Field(default=10.0, gt=0)
    """Time for one URL, the resolving of its host's name included."""

    @model_validator(mode="after")
    def _hosts_named(self) -> Self:
        if self.allow_urls and not self.url_hosts:
            raise ValueError("images.allow_urls needs images.url_hosts: name the hosts you trust")
        return self


class RoutingPolicy(Part):
    """Which turns are judged."""

    history_images: int | None = Field(default=None, ge=0)
    """How many messages back an earlier image still makes a turn an image turn; None: all."""


class JudgePart(Part):
    """What all judges share."""

    timeout_s: float | None = Field(default=None, gt=0)
    """Time for one judgement; None: the turn's deadline alone."""
    caption: bool = False
    """Also write a caption of the scene (costs a short generation)."""
    rationale: bool = False
    """Also write one sentence on why."""
    cache_size: int = Field(default=1024, ge=0)
    """Judgements kept in memory, keyed by the hash of the whole request; 0: no cache."""
    cache_path: str | None = None
    """An SQLite file that keeps judgements beyond this process, and shares them with others."""
    cache_path_size: int = Field(default=100_000, gt=0)
    """Judgements kept in that file."""
    calibration: str | None = None
    """A file of ``safecode-guard calibrate``, made for this judge; other judges refuse it."""


class SameModelJudgeConfig(JudgePart):
    """The guarded model judges; the image is prefilled once for verdict and answer."""

    kind: Literal["same_model"] = "same_model"
    min_label_mass: Probability = 0.1
    """Below this probability of answering with a label at all, the judge is undecided."""
    debias: bool = False
    """Take off what the model says of a grey picture and no request (costs a question a stage)."""
    trim_borders: bool = True
    """Judge what stands inside a plain frame or between bars, where a picture has them."""


class LocalJudgeConfig(JudgePart):
    """Another local vision-language model judges, usually a lighter one."""

    kind: Literal["local"] = "local"
    model: str
    """Directory or hub name, as for ``ChatTransformers.from_pretrained``."""
    device: str | None = None
    dtype: str | None = None
    local_files_only: bool = True
    min_label_mass: Probability = 0.1
    debias: bool = False
    """Take off what the model says of a grey picture and no request (costs a question a stage)."""
    trim_borders: bool = True
    """Judge what stands inside a plain frame or between bars, where a picture has them."""


GuardName = Literal[
    "llama_guard_4",
    "llama_guard_3_vision",
    "llavaguard",
    "qwenguard",
    "qwen3guard",
    "granite_guardian",
    "policy",
]
"""Guard models that write their verdict; ``policy`` is any model that is told a policy in words."""


class GuardModelJudgeConfig(JudgePart):
    """A published guard model judges, in its own form; or any model that is told a policy."""

    kind: Literal["guard_model"] = "guard_model"
    adapter: Literal[GuardName, "shieldgemma_2"]
    """Whose form: how the model is asked, and what its answers mean."""
    model: str
    """Directory or hub name."""
    policy: str | None = Field(default=None, min_length=1)
    """What a model that is told its policy is told; None: the adapter's own."""
    device: str | None = None
    dtype: str | None = None
    local_files_only: bool = True


class RasJudgeConfig(JudgePart):
    """How near the guarded model is to refusing by itself, as RAS finds it: no judge's question."""

    kind: Literal["ras"] = "ras"
    prototypes: str = Field(min_length=1)
    """A file of ``safecode-guard ras fit``, made with this model; other models refuse it."""


class HttpJudgeConfig(JudgePart):
    """A model behind an OpenAI-compatible endpoint judges (needs the extra ``remote``)."""

    kind: Literal["http"] = "http"
    url: str
    """Where the API begins: ``http://host:8000/v1``."""
    model: str = Field(min_length=1)
    """Name that the endpoint knows the model by."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Sent as a bearer token; never shown, and no part of the digest."""
    reply: Literal["auto", "logprobs", "json", "word"] = "auto"
    """How it is made to answer; ``auto`` takes the first of the three that the endpoint can."""
    judge_prompt: str | None = None
    """A question of the model's own, with ``{query}``; None: the general one."""
    min_label_mass: Probability = 0.1
    """With ``logprobs``: as for a local judge."""
    timeout_s: float | None = Field(default=30.0, gt=0)
    """Time for one judgement, retries and waiting included; None: the turn's deadline alone."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    read_timeout_s: float = Field(default=20.0, gt=0)
    """Longest silence of the endpoint."""
    retries: int = Field(default=2, ge=0)
    """Further attempts where there was no connection, or a status 408, 429, 500, 502, 503, 504."""
    concurrency: int = Field(default=16, gt=0)
    """Requests that are under way at a time."""
    breaker_failures: int = Field(default=5, gt=0)
    """After as many failures of the endpoint in a row it is left alone."""
    breaker_s: float = Field(default=30.0, gt=0)
    """For how long it is left alone then: every check fails at once."""
    max_request_bytes: int = Field(default=20_000_000, gt=0)
    max_response_bytes: int = Field(default=1_000_000, gt=0)
    ca_file: Path | None = None
    """Certificates to trust in place of the usual ones. There is no way not to check them."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an endpoint's url begins with http:// or https:// and names a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an endpoint's url has no user, query or fragment; see api_key, model")
        return value.rstrip("/").removesuffix("/chat/completions")

    @field_validator("judge_prompt")
    @classmethod
    def _with_query(cls, value: str | None) -> str | None:
        if value is not None and "{query}" not in value:
            raise ValueError("judge_prompt needs {query} where the request is to stand")
        return value

    @model_validator(mode="after")
    def _words_need_json(self) -> Self:
        if self.reply != "json" and (self.caption or self.rationale):
            raise ValueError("an http judge's caption and rationale need reply = 'json'")
        return self


class ChatJudgeConfig(JudgePart):
    """Any LangChain chat model judges; the object is handed to the guard."""

    kind: Literal["chat"] = "chat"


class CustomJudgeConfig(JudgePart):
    """A judge object of the user's own; its id enters the digest."""

    kind: Literal["custom"] = "custom"
    id: str = Field(min_length=1)


class CombinedJudgeConfig(JudgePart):
    """What judges over others have in common."""

    members: tuple[JudgeConfig, ...] = Field(min_length=2)
    """Their configurations, of any kind that needs no object; in the order of being asked."""


class CascadeJudgeConfig(CombinedJudgeConfig):
    """The first judge decides where it is sure; the next is asked where it is not."""

    kind: Literal["cascade"] = "cascade"
    band: tuple[Probability, Probability] = (0.2, 0.8)
    """Between these probabilities a member is not sure."""


class EnsembleJudgeConfig(CombinedJudgeConfig):
    """All judges are asked, and a rule makes one finding of theirs."""

    kind: Literal["ensemble"] = "ensemble"
    rule: Literal["any", "majority", "mean", "log_odds"] = "any"
    weights: tuple[float, ...] | None = None
    """Of the members, for ``mean`` and ``log_odds``."""
    needed: int | None = Field(default=None, gt=0)
    """How many must answer; None: all."""


class FallbackJudgeConfig(CombinedJudgeConfig):
    """The next judge is asked if the one before it failed."""

    kind: Literal["fallback"] = "fallback"


JudgeConfig = Annotated[
    SameModelJudgeConfig
    | LocalJudgeConfig
    | GuardModelJudgeConfig
    | RasJudgeConfig
    | HttpJudgeConfig
    | ChatJudgeConfig
    | CustomJudgeConfig
    | CascadeJudgeConfig
    | EnsembleJudgeConfig
    | FallbackJudgeConfig,
    Field(discriminator="kind"),
]
for _config in (CombinedJudgeConfig, CascadeJudgeConfig, EnsembleJudgeConfig, FallbackJudgeConfig):
    _config.model_rebuild()


def _same_model_unless_named(value: Any) -> Any:
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "same_model", **value}
    return value


class Thresholds(Part):
    """Where a probability becomes a label; between the two the judge is undecided."""

    unsafe: Probability = 0.55
    """At or above: unsafe."""
    safe: Probability = 0.45
    """At or below: safe."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.safe > self.unsafe:
            raise ValueError("thresholds.safe must not be above thresholds.unsafe")
        return self


class DecodingPolicy(Part):
    """How an answer is steered. ``None`` takes the model's own record, then the recipe's value."""

    strategy: str = "safecode"
    """``safecode``, ``ras``, ``vcd``, ``verdict_prompt``, ``adashield_s``, ``ecso``, ``plain``, or
    the id of an own strategy object."""
    prototypes: str | None = None
    """Strategy ``ras``: a file of ``safecode-guard ras fit``, made with this model."""
    recipe: Recipe = "guarded"
    """SafeCoDe as we do it, as the paper says, or as the authors' released code does it."""
    alpha: float | None = Field(default=None, ge=0)
    """Weight of the noised view's logits that is taken away (paper: 0.3)."""
    contrast_below: Probability | None = None
    """From this certainty of the judge on, |2 p_unsafe - 1|, nothing is contrasted: alpha is 0 and
    no second view is made; 1: contrast whatever it is."""
    sigma: float | None = Field(default=None, ge=0)
    """Standard deviation of the Gaussian noise, on pixels in [0, 1] (paper: 0.1)."""
    noise_order: Literal["after_resize", "before_resize"] | None = None
    """Noise after the resize to the model's input size, or before it (the paper's order)."""
    reference_view: Literal["noise", "grey"] | None = None
    """The second view: the noised image, or a plain grey one."""
    normalise: Literal["none", "rescale", "vcd"] | None = None
    """Scale of the contrast: as in the paper, divided by 1 - alpha, or (1+a) z - a z~."""
    plausibility: float | None = Field(default=None, ge=0, le=1)
    """Keep tokens with p >= this share of the clean view's best; 0: no cut."""
    lambda_boost: float | None = Field(default=None, ge=0)
    """Added to refusal tokens when the verdict is unsafe (paper: 1.0)."""
    lambda_supp: float | None = Field(default=None, ge=0)
    """Taken from refusal tokens when the verdict is safe (paper: 1.0)."""
    certainty_power: float | None = Field(default=None, ge=0)
    """Lambda is scaled by |2 p_unsafe - 1| to this power; 0: not scaled."""
    guided_steps: int | None = Field(default=None, ge=0)
    """Tokens that are steered before generation goes on as usual (paper: 5)."""
    most_steps: int | None = Field(default=None, ge=0)
    """Recipe guarded: tokens up to which steering goes on while the text is within a refusal."""
    reasoning: Literal["skip", "steer"] | None = None
    """Recipe guarded: a model's reasoning is left alone, or steered as an answer is."""
    top_k: int | None = Field(default=None, ge=1)
    """Refusal tokens are modulated only among the contrast's best top_k (paper: 20)."""
    root_weight: float | None = Field(default=None, ge=0, le=1)
    """Share of lambda for an ambiguous first token of a refusal, such as ``I``."""
    retry_push: float = Field(default=4.0, gt=1)
    """With ``on_disobeyed = "retry"``: how many times the push the second answer gets."""
    refusal_languages: tuple[str, ...] = ("en", "de", "fr", "es", "zh")
    refusal_phrases: tuple[str, ...] = ()
    """Phrases of your own, added to the lexicon."""
    seed: int = 0
    """Seed of the noise, when the caller gives none."""


class Actions(Part):
    """What follows from each outcome; the defaults are the preset ``balanced``.

    ``guide`` suppresses refusals when the label is safe, and boosts them in every other case.
    """

    safe: Action = "guide"
    unsafe: Action = "guide"
    undecided: Action = "pass"
    judge_error: Literal["guide", "review", "block"] = "review"
    """The check failed: never a pass."""
    unjudgeable: Literal["review", "block"] = "block"
    """The turn carries media that cannot be judged: never a pass."""


class StageActions(Part):
    """What follows at one stage, or for one tool; None: as the policy's ``actions`` say."""

    safe: Action | None = None
    unsafe: Action | None = None
    undecided: Action | None = None
    judge_error: Literal["guide", "review", "block"] | None = None
    unjudgeable: Literal["review", "block"] | None = None


class StagePart(Part):
    """What all stages share."""

    judge: JudgeConfig | None = None
    """A judge of this stage's own; None: the policy's."""
    actions: StageActions = StageActions()
    """What follows at this stage, where it differs from the policy's ``actions``."""

    _named_judge = field_validator("judge", mode="before")(_same_model_unless_named)


class InputStage(StagePart):
    """The user's turn, before it is answered. Only here an answer can be guided."""

    when: Literal["images", "always"] = "images"
    """``images``: only turns that have one, in their history too."""


class ToolStage(StagePart):
    """A tool's call or result. Actions are asked for by the tool's name."""

    tools: Annotated[dict[str, Literal["skip"] | StageActions], AfterValidator(Table)] = Field(
        default_factory=Table
    )
    """Patterns of tool names (``get_*``), the first that matches; ``skip`` is never judged."""

    def actions_for(self, tool: str | None) -> Literal["skip"] | StageActions | None:
        """Return what the first pattern that matches a tool says; None if none does."""
        names = (rule for pattern, rule in self.tools.items() if fnmatchcase(tool or "", pattern))
        return next(names, None)


class ToolCallStage(ToolStage):
    """A tool call, before it runs."""

    when: Literal["images", "always"] = "always"
    """``images``: only where the conversation has one."""


class ToolResultStage(ToolStage):
    """What a tool returned, before the model is shown it."""

    when: Literal["images", "always"] = "images"
    """``images``: only where the conversation, the result included, has one."""


class OutputStage(StagePart):
    """The finished answer, which is held back until it has passed."""

    when: Literal["never", "unsafe", "always"] = "never"
    """``unsafe``: only where the input's verdict was not safe; ``always``: text-only turns too."""

    def applies(self, label: Label | None, *, judged: bool) -> bool:
        """Return whether the answer to a turn has to be judged too.

        Args:
            label: The label of the turn's own verdict.
            judged: Whether the turn was judged at all.
        """
        return self.when == "always" or (self.when == "unsafe" and judged and label != "safe")


class Stages(Part):
    """What is judged, and what follows, at each point of a turn.

    ``guide`` means something at ``input`` alone. At every other stage it is a pass for what is
    safe and a block for all else, and what is undecided is at least held for review.
    """

    input: InputStage = InputStage()
    tool_call: ToolCallStage = ToolCallStage()
    tool_result: ToolResultStage = ToolResultStage()
    output: OutputStage = OutputStage()

    def judges(self) -> Iterator[tuple[Stage, JudgeConfig]]:
        """Yield the stages that have a judge of their own."""
        for stage in STAGES:
            config = getattr(self, stage).judge
            if config is not None:
                yield stage, config


class PolicyFields(Part):
    """What a policy holds; shared by `Policy` and the settings that load one."""

    name: str = "balanced"
    mode: Literal["guard", "judge_only"] = "guard"
    """``judge_only`` never steers: pass, block or review around any chat model."""
    images: ImagePolicy = ImagePolicy()
    routing: RoutingPolicy = RoutingPolicy()
    judge: JudgeConfig = SameModelJudgeConfig()
    thresholds: Thresholds = Thresholds()
    decoding: DecodingPolicy = DecodingPolicy()
    actions: Actions = Actions()
    category_actions: Annotated[dict[Category, Action], AfterValidator(Table)] = Field(
        default_factory=Table
    )
    """Overrides for an unsafe label by hazard; the most severe applies."""
    stages: Stages = Stages()
    scene_images: int = Field(default=4, gt=0)
    """Newest pictures that a judge is shown together; earlier ones are judged in such groups."""
    scene_requests: int = Field(default=4, gt=0, le=64)
    """Newest requests of the user that a judge is shown, with what stands before a short one."""
    scene_judged: Literal["together", "each", "both"] = "both"
    """Several pictures are judged together, each by itself, or in both ways; the worst counts."""
    obeyed_by: Literal["lexicon", "judge"] = "lexicon"
    """Who tells whether a steered answer obeyed. ``judge``: after an unsafe verdict the judge of
    stage ``output``, and the lexicon where that cannot."""
    on_disobeyed: Literal["report", "retry", "replace", "rail"] = "report"
    """What follows if it did not. ``report``: the verdict says so. ``retry``: a second answer, with
    a larger push. After an unsafe verdict: ``replace`` answers with ``refusal_text``, ``rail``
    judges the answer as stage ``output`` would. All but ``report`` hold the answer back."""
    on_block: Literal["message", "raise"] = "message"
    """Answer a blocked turn with ``refusal_text``, or raise ``TurnBlocked``."""
    refusal_text: str = Field(
        default="I can't help with this request for what the picture shows.", min_length=1
    )
    review_text: str = Field(
        default="This request is held for human review before it can be answered.", min_length=1
    )
    record_content: bool = False
    """Put captions and rationales, which are content, into verdicts, traces and checkpoints."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Time for one turn, waiting included."""
    prefix_cache_bytes: int = Field(default=PREFIX_CACHE_BYTES, ge=0)
    """Prefilled prompts kept beside a model in this process, for turns that begin alike; 0: none
    is kept, and none continued."""

    _named_judge = field_validator("judge", mode="before")(_same_model_unless_named)


class Policy(PolicyFields):
    """What the guard looks at, who judges, and what follows.

    Example:
        >>> Policy.preset("strict").actions.judge_error
        'block'
    """

    @classmethod
    def preset(cls, name: PresetName, **overrides: Any) -> Self:
        """Return a preset with overrides: tables are merged key by key, `Part` objects replace.

        Raises:
            PolicyError: If the preset is unknown or an override is invalid.
        """
        if name not in PRESETS:
            raise PolicyError(f"Unknown preset {name!r}.", hint=f"Use one of {listed(PRESETS)}.")
        return cls.load(_merge({"name": name, **PRESETS[name]}, overrides))

    @classmethod
    def of(cls, given: Any) -> Self:
        """Return a policy that is given as one, by a preset's name, or as plain data.

        Raises:
            PolicyError: If it is none of these, or invalid.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls.preset(given)  # type: ignore[arg-type]
        if isinstance(given, Mapping):
            return cls.load(given)
        raise PolicyError(
            f"{type(given).__name__!r} is no policy.",
            hint="Pass a Policy, a preset's name, or a table of its keys.",
        )

    @classmethod
    def load(cls, data: Any) -> Self:
        """Validate a policy from plain data.

        Raises:
            PolicyError: If it is empty or invalid; lists each wrong key.
        """
        if not data:
            raise PolicyError("The policy is empty.", hint="An empty policy guards nothing.")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise PolicyError(explain(error), hint="See `safecode-guard policy schema`.") from error

    def updated(self, /, **overrides: Any) -> Self:
        """Return this policy with overrides: tables are merged key by key, `Part` objects replace.

        Raises:
            PolicyError: If an override is invalid.
        """
        return self.load(_merge({"name": self.name} | _given(self), overrides))

    def actions_at(self, stage: Stage, tool: str | None = None) -> Literal["skip"] | Actions:
        """Return the actions in force at a stage, for a tool where it has one.

        What a tool's or a stage's own actions leave open is as in the policy's ``actions``.
        """
        part = getattr(self.stages, stage)
        return self._actions(part, part.actions_for(tool) if isinstance(part, ToolStage) else None)

    def every_actions_at(self, stage: Stage) -> tuple[Literal["skip"] | Actions, ...]:
        """Return all actions that may be in force at a stage: its own, and those of each pattern.

        The patterns are in the policy's order.
        """
        part = getattr(self.stages, stage)
        named = part.tools.values() if isinstance(part, ToolStage) else ()
        return tuple(self._actions(part, rule) for rule in (None, *named))

    def _actions(
        self, part: StagePart, named: Literal["skip"] | StageActions | None
    ) -> Literal["skip"] | Actions:
        if named == "skip":
            return "skip"
        chosen = [a.model_dump(exclude_none=True) for a in (part.actions, named) if a]
        return self.actions.model_copy(update={k: v for one in chosen for k, v in one.items()})

    def deadline_from(self, started: float) -> float | None:
        """Return when a turn that began then has to end, in seconds of ``time.monotonic``."""
        return None if self.deadline_s is None else started + self.deadline_s

    def digest(self, **objects: str) -> str:
        """Return the sha256 over the canonical JSON of this policy.

        Args:
            **objects: Ids of objects outside the policy that change its effect (own judge,
                own strategy).
        """
        # Of a stage's patterns the first counts, and sorted keys would hide which it is.
        tools = [list(part.tools) for part in (self.stages.tool_call, self.stages.tool_result)]
        canonical = json.dumps(
            {"policy": self.model_dump(mode="json"), "tools": tools, "objects": objects},
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode()).hexdigest()


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "balanced": {"actions": {}},
    "strict": {
        "actions": {"undecided": "guide", "judge_error": "block", "unjudgeable": "block"},
        "stages": {"output": {"when": "unsafe"}},
    },
    "permissive": {"actions": {"judge_error": "guide", "unjudgeable": "review"}},
}


def kinds_of(judge: JudgeConfig) -> Iterator[str]:
    """Yield the kind of a judge, and of those that it asks."""
    yield judge.kind
    for member in getattr(judge, "members", ()):
        yield from kinds_of(member)


def key_paths() -> tuple[str, ...]:
    """Return every key of a policy, dotted: ``thresholds.unsafe``; tables stand alone as well."""
    return tuple(dict.fromkeys(_paths_of(Policy)))


def explain(error: ValidationError) -> str:
    """Return one sentence on each wrong key of a policy, with the key that was probably meant."""
    lines = (
        f"{'.'.join(map(str, e['loc'])) or 'policy'}: {e['msg']}{_nearest(e)}"
        for e in error.errors(include_input=False, include_url=False)
    )
    return "Invalid policy: " + "; ".join(lines) + "."


def _given(value: Any) -> Any:
    """Return what was set of a part, so that what was left open stays open."""
    if isinstance(value, Part):
        kept = value.model_fields_set | {"kind"}  # a union's member is told by it
        names = [name for name in type(value).model_fields if name in kept]
        return {name: _given(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items()}
    return value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        other_kind = isinstance(value, dict) and "kind" in value  # a union's other member
        if (
            isinstance(below, dict)
            and isinstance(value, dict)
            and not (other_kind and below.get("kind") != value["kind"])
        ):
            value = _merge(below, value)
        merged[key] = value
    return merged


def _paths_of(annotation: Any, path: str = "") -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        for name, field in annotation.model_fields.items():
            yield f"{path}{name}"
            if name != "members":  # judges of judges have no end
                yield from _paths_of(field.annotation, f"{path}{name}.")
    elif annotation == dict[Category, Action]:
        yield from (f"{path}{category}" for category in CATEGORIES)
    else:
        for member in get_args(annotation):
            yield from _paths_of(member, path)


def _nearest(error: Any) -> str:
    if error["type"] != "extra_forbidden":
        return ""
    close = difflib.get_close_matches(".".join(map(str, error["loc"])), key_paths(), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
