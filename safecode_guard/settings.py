"""Loading a policy from code, the environment, a file and a secrets directory.

Sources, the first that names a value wins, and parts are merged key by key:

1. arguments, ``SafeCoDeSettings(preset="strict")``;
2. the environment, ``SAFECODE_THRESHOLDS__UNSAFE=0.7``;
3. the policy file, TOML or YAML, named by ``policy_file`` or ``SAFECODE_POLICY_FILE``;
4. a secrets directory, one file a value, ``safecode_judge__model``;
5. the preset.

A configuration that was meant and could not be read stops the program: see `PolicyError`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from safecode_guard.errors import PolicyError
from safecode_guard.policy import PRESETS, Policy, PolicyFields, PresetName, explain, key_paths

PREFIX: Final = "SAFECODE_"
NO_POLICY: Final = frozenset({"SAFECODE_SEAL_KEY"})
"""Variables that set up no policy: the secret by which agents seal what they remember."""
DELIMITER: Final = "__"
OWN_FIELDS: Final = ("preset", "policy_file")


class UnknownSettingWarning(UserWarning):
    """A variable or secret with our prefix that no setting has: a typing error, most likely."""


class UnreadEnvironmentWarning(UserWarning):
    """The environment sets up a policy, and something was made without reading it."""


class SafeCoDeSettings(PolicyFields, BaseSettings):
    """Loads a `Policy`; see the module's text for its sources.

    Example:
        >>> SafeCoDeSettings(preset="strict", thresholds={"unsafe": 0.7}).policy().name
        'strict'

    Raises:
        PolicyError: If the file is missing, empty or unreadable, or any value is invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_parse_none_str="null",
        secrets_dir_missing="error",
    )

    preset: PresetName = "balanced"
    """The preset that all other sources override."""
    policy_file: Path | None = None
    """A TOML or YAML file with the keys of a policy, and ``preset`` if wanted."""

    def __init__(
        self,
        *,
        policy_file: str | Path | None = None,
        secrets_dir: str | Path | None = None,
        **values: Any,
    ) -> None:
        if policy_file is not None:
            values["policy_file"] = policy_file
        try:
            BaseSettings.__init__(self, _secrets_dir=secrets_dir, **values)
        except ValidationError as error:
            raise PolicyError(explain(error), hint="See `safecode-guard policy schema`.") from error
        except SettingsError as error:
            raise PolicyError(
                f"Unreadable settings: {error}.",
                hint="Lists in the environment are JSON: '[\"a\"]'; directories must exist.",
            ) from error

    def policy(self) -> Policy:
        """Return the policy that the sources add up to."""
        return Policy.load({name: getattr(self, name) for name in Policy.model_fields})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in the order in which they win."""
        secrets = NestedSecretsSettingsSource(file_secret_settings)
        _warn_of_unknown(os.environ, "environment variable")
        _warn_of_unknown(secrets.env_vars, "secret")
        return (
            init_settings,
            env_settings,
            _PolicyFileSource(settings_cls),
            secrets,
            _PresetSource(settings_cls),
        )


def warn_of_unread(what: str, *, meant: str, stacklevel: int = 3) -> None:
    """Warn that variables which set up a policy are not read by a plain constructor.

    Args:
        what: The constructor.
        meant: What reads them.
        stacklevel: As in ``warnings.warn``, from here.
    """
    named = (name for name in os.environ if name.upper().startswith(PREFIX))
    names = sorted(name for name in named if name.upper() not in NO_POLICY)
    if names:
        warnings.warn(
            f"{names[0]} is set, but {what}(...) reads no environment: use {meant}, or pass "
            "policy=.",
            UnreadEnvironmentWarning,
            stacklevel=stacklevel,
        )


class _WholeSource(PydanticBaseSettingsSource):
    """A source that yields all of its values at once."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: `__call__` does the work."""
        return None, field_name, False


class _PolicyFileSource(_WholeSource):
    """The values of the policy file that the sources before it name."""

    def __call__(self) -> dict[str, Any]:
        named = self.current_state.get("policy_file")
        if named is None:
            return {}
        return read_policy_file(named)


class _PresetSource(_WholeSource):
    """The values of the preset that the sources before it name."""

    def __call__(self) -> dict[str, Any]:
        if "policy_file" in self.settings_sources_data[NestedSecretsSettingsSource.__name__]:
            raise PolicyError(
                "A secret named 'policy_file' would come too late to be read.",
                hint=f"Set {PREFIX}POLICY_FILE in the environment instead.",
            )
        name = self.current_state.get("preset", "balanced")
        # an unknown name is left to the field's own validation
        return {"name": name, **PRESETS[name]} if name in PRESETS else {}


def read_policy_file(path: str | Path) -> dict[str, Any]:
    """Return the values of a policy file, not yet validated.

    Raises:
        PolicyError: If the file is missing, unreadable, malformed or empty, or is neither TOML
            nor YAML.
    """
    path = Path(path)
    if not str(path).strip() or path == Path():
        raise PolicyError(
            "The policy file has no name.", hint=f"Name it, or unset {PREFIX}POLICY_FILE."
        )
    try:
        text = path.read_text(encoding="utf-8")
        values = _parse(text, path.suffix.lower())
    except OSError as error:
        raise PolicyError(
            f"Cannot read the policy file {str(path)!r}: {error.strerror}.",
            hint="Without its policy the guard does not start; name a file that can be read.",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise PolicyError(f"The policy file {str(path)!r} is malformed: {reason}.") from error
    if not values:
        raise PolicyError(
            f"The policy file {str(path)!r} is empty.",
            hint='An empty policy guards nothing; for the defaults write: preset = "balanced".',
        )
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise PolicyError(f"The policy file {str(path)!r} must be a table of named values.")
    if "policy_file" in values:
        raise PolicyError(f"The policy file {str(path)!r} cannot name another policy file.")
    return values


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        return yaml.load(text, Loader=_StrictLoader)
    raise PolicyError(
        f"A policy file cannot be of the kind {suffix!r}.", hint="Use .toml, .yaml or .yml."
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses repeated keys, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys are all different."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"repeated key {min(map(str, repeated))!r}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _warn_of_unknown(names: Iterable[str] | Mapping[str, Any], kind: str) -> None:
    """Warn of names with our prefix that no source would read."""
    paths = (*OWN_FIELDS, *key_paths())
    tops = {path.split(".")[0] for path in paths}
    tables = {path.split(".")[0] for path in paths if "." in path}
    known = [path.upper().replace(".", DELIMITER) for path in paths]
    for name in names:
        if not name.upper().startswith(PREFIX):
            continue
        top, *rest = name[len(PREFIX) :].lower().split(DELIMITER)
        if top in (tables if rest else tops):
            continue
        close = difflib.get_close_matches(name[len(PREFIX) :].upper(), known, n=1)
        meant = f" Did you mean {PREFIX}{close[0]}?" if close else ""
        warnings.warn(
            f"Unknown {kind} {name!r} is ignored.{meant}", UnknownSettingWarning, stacklevel=6
        )
