from __future__ import annotations

from safecode_guard.models.protocol import Needs
from safecode_guard.steering.plain import Plain
from tests.unit.steering.contexts import context
from tests.unit.steering.vocabularies import byte_level


def test_the_model_is_left_alone():
    given = context(byte_level())
    assert Plain().prepare(given) is None
    assert Plain().record(given) == {}
    assert Plain().needs == Needs(logits=False)
