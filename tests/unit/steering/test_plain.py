from __future__ import annotations

from safecode_guard.steering.plain import Plain
from tests.unit.steering.contexts import context
from tests.unit.steering.vocabularies import byte_level


def test_the_model_is_left_alone():
    assert Plain().prepare(context(byte_level())) is None
