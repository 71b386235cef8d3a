"""From a policy and objects of the user's own to what serves turns under it."""

import pytest
from langchain_core.language_models import FakeListChatModel

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import LogitsUnavailable, PolicyError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import JudgeAbilities
from safecode_guard.models.protocol import Needs
from safecode_guard.pipeline.factory import load_local, make_examiner, make_turns
from safecode_guard.policy import LocalJudgeConfig, Policy
from safecode_guard.testing import ScriptedJudge, ScriptedServer, ScriptedVLM
from tests.unit.pipeline.serving import HELP, REFUSAL, examiner, request


class Own:
    id = "own"
    needs = Needs(logits=False)

    def prepare(self, context):
        return None

    def record(self, context):
        return {}


def policy(**fields) -> Policy:
    return Policy.load({"name": "t", **fields})


# -- examiners -------------------------------------------------------------------------------


def test_the_engine_judges_itself_unless_there_is_a_judge():
    vlm = ScriptedVLM()
    own = make_examiner(policy(), engine=vlm).judge
    assert isinstance(own, LabelLogitsJudge)
    assert own.engine is vlm
    judge = ScriptedJudge()
    assert make_examiner(policy(), engine=vlm, judge=judge).judge is judge
    with pytest.raises(PolicyError, match="same_model"):
        make_examiner(policy())


def test_the_digest_names_objects_outside_the_policy():
    plain = policy()
    digests = {
        make_examiner(plain, engine=ScriptedVLM()).digest,
        make_examiner(plain, judge=ScriptedJudge()).digest,
        make_examiner(plain, judge=ScriptedJudge(id="other")).digest,
        make_examiner(plain, judge=ScriptedJudge(), strategy=Own()).digest,
    }
    assert len(digests) == 4
    assert make_examiner(plain, engine=ScriptedVLM()).digest == plain.digest()


def test_stages_have_their_own_judges_and_fall_back_on_the_policys():
    vlm = ScriptedVLM()
    stages = {"output": {"judge": {"kind": "same_model"}}}
    made = make_examiner(policy(stages=stages), engine=vlm, judge=ScriptedJudge())
    assert isinstance(made.judge_at("output"), LabelLogitsJudge)
    assert {made.judge_at(s).id for s in ("input", "tool_call", "tool_result")} == {"scripted"}


def test_a_local_judge_loads_nothing_until_it_is_asked(monkeypatch):
    monkeypatch.setattr(TransformersModel, "load", lambda *_, **__: pytest.fail("loaded"))
    made = make_examiner(policy(judge={"kind": "local", "model": "light"}))
    assert isinstance(made.judge, LocalJudge)
    assert made.judge.id.startswith("local:light@")


LOST = {"kind": "local", "model": "lihgt"}


@pytest.mark.parametrize(
    "given",
    [
        {"judge": LOST},
        {"judge": {"kind": "cascade", "members": [{"kind": "local", "model": "nano"}, LOST]}},
        {"stages": {"output": {"judge": LOST}}},
    ],
)
def test_a_judge_that_is_not_there_is_told_at_construction(given):
    with pytest.raises(PolicyError, match="no model 'lihgt'.*Did you mean 'light'"):
        make_examiner(policy(**given), engine=ScriptedVLM())


def test_judges_are_given_by_name():
    assert make_examiner(policy(), judge="nano").judge.id.startswith("local:nano@")
    remote = make_examiner(policy(), judge="openai:http://localhost:1/v1#m").judge
    assert remote.id.startswith("http:m@")
    with pytest.raises(PolicyError, match="Did you mean 'nano'"):
        make_examiner(policy(), judge="nanno")


def test_a_local_judges_model_is_loaded_as_the_policy_says(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        TransformersModel, "load", lambda name, **options: seen.update(options, name=name)
    )
    load_local(LocalJudgeConfig(model="m", device="cpu", dtype="float32"))
    assert seen == {"name": "m", "device": "cpu", "dtype": "float32", "local_files_only": True}


def test_category_actions_need_a_judge_that_names_categories():
    actions = policy(category_actions={"situational": "block"})
    with pytest.raises(PolicyError, match="'scripted' gives no categories"):
        make_examiner(actions, judge=ScriptedJudge())
    naming = ScriptedJudge(abilities=JudgeAbilities(categories=True))
    assert make_examiner(actions, judge=naming).judge is naming


def test_the_cache_is_as_large_as_the_policy_says():
    assert examiner(policy={"judge": {"cache_size": 7}}).cache.size == 7


# -- turns -----------------------------------------------------------------------------------


def test_the_policy_names_the_strategy():
    vlm = ScriptedVLM({HELP: 0.1, REFUSAL: 0.0})
    texts = {}
    for name in ("plain", "safecode"):
        turns = make_turns(vlm, examiner(0.95, {"decoding": {"strategy": name}}))
        (result,) = turns.run([request()])
        texts[name] = result.text
    assert texts == {"plain": HELP, "safecode": REFUSAL}


def test_a_strategy_that_the_engine_cannot_run_is_refused_at_once():
    server = ScriptedServer(ScriptedVLM(HELP))
    make_turns(server, examiner())
    with pytest.raises(LogitsUnavailable, match="edits logits"):
        make_turns(DelegateEngine(FakeListChatModel(responses=["x"])), examiner())
    with pytest.raises(PolicyError, match="no_such"):
        make_turns(server, examiner(policy={"decoding": {"strategy": "no_such"}}))


def test_where_nothing_is_steered_no_strategy_is_asked_for():
    engine = DelegateEngine(FakeListChatModel(responses=[HELP]))
    (result,) = make_turns(engine, examiner(0.1, steers=False)).run([request()])
    assert (result.text, result.verdicts[0].action) == (HELP, "pass")


def test_without_a_queue_nobody_waits():
    turns = make_turns(ScriptedVLM(HELP), examiner())
    assert len(turns.run([request(str(i)) for i in range(100)])) == 100
