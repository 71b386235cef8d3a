"""Processors without torchvision.

Families that also take video ask for a video processor, which needs torchvision. None is ever
needed here, so their processors are loaded without it. Pillow resizes the images everywhere:
its pixels and torchvision's are not bit-equal, and verdicts must not depend on what is installed.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from safecode_guard.errors import UnsupportedFamily
from safecode_guard.models.families import Family


def load_processor(name: str, *, config: Any, family: Family, **options: Any) -> Any:
    """Load a model's processor, image-only where it would take video too.

    Args:
        name: Directory or hub name.
        config: The model's config.
        family: Its record.
        **options: For ``from_pretrained``, such as ``local_files_only`` and ``revision``.

    Raises:
        UnsupportedFamily: If a package is missing that the family needs; names it.
    """
    require_packages(family)
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import (
        PROCESSOR_MAPPING_NAMES,
        processor_class_from_name,
    )

    if family.needs_torchvision:
        return AutoProcessor.from_pretrained(name, **options)
    options = {"backend": "pil", **options}
    class_name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    cls = processor_class_from_name(class_name) if class_name else None
    if cls is not None and "video_processor" in cls.get_attributes():
        return image_only(cls).from_pretrained(name, **options)
    return AutoProcessor.from_pretrained(name, **options)


def require_packages(family: Family) -> None:
    """Check that what the family's processor imports is installed.

    Raises:
        UnsupportedFamily: If something is missing; the hint says how to get it.
    """
    if family.needs_torchvision and find_spec("torchvision") is None:
        raise UnsupportedFamily(
            f"Models of the family {family.name!r} need torchvision for their images.",
            hint="Install the torchvision build that matches your torch, or use another model.",
        )
    missing = [package for package in family.needs_packages if find_spec(package) is None]
    if missing:
        raise UnsupportedFamily(
            f"Models of the family {family.name!r} need {', '.join(missing)}.",
            hint="Run `pip install 'safecode-guard[families]'`.",
        )


@functools.cache
def image_only(cls: Any) -> Any:
    """Return a processor class like ``cls`` that has no video processor."""
    attributes = [name for name in cls.get_attributes() if name != "video_processor"]

    # `__init__` stays the parent's: transformers filters keyword arguments by its code object.
    def get_attributes(own: type[Any]) -> list[str]:
        return list(attributes)

    def from_args_and_dict(
        own: type[Any], /, args: Any, values: dict[str, Any], **options: Any
    ) -> Any:
        values = {key: value for key, value in values.items() if key != "video_processor"}
        return super(made, own).from_args_and_dict([*args, None], values, **options)

    made: Any = type(
        cls.__name__,
        (cls,),
        {
            "__module__": cls.__module__,
            "video_processor": SimpleNamespace(num_frames=1, fps=1),  # read by constructors
            "get_attributes": classmethod(get_attributes),
            "from_args_and_dict": classmethod(from_args_and_dict),
        },
    )
    return made
