"""Turn a YAML file into a checked configuration, with messages that name the file, the line and the remedy.

A configuration is read once, at the edge: unknown keys are refused and the nearest known key is
suggested, paths become absolute (relative ones are taken from the folder of the file), and what a
run receives is a frozen pydantic model whose ``resolved_yaml`` reproduces the run from any folder.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from skyloom.errors import ConfigError
from skyloom.recipes.galaxies import lay_galaxies, read_galaxies

# --- YAML ------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``off`` and ``12:30:00`` stay text, ``007`` keeps its zeros, ``1e-3`` is a number.

    PyYAML follows YAML 1.1, where an object called ``on`` becomes True and a right ascension becomes a
    base-60 integer.
    """


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in result:
            message = f"the key {key!r} stands twice in this block"
            raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, source: str | None = None) -> tuple[Any, yaml.Node | None]:
    """Parse one YAML document.

    Parameters
    ----------
    text : str
        The document.
    source : str, optional
        Where the text comes from, for messages.

    Returns
    -------
    tuple
        The plain Python value, and the node tree that knows on which line each value stands.

    Raises
    ------
    ConfigError
        If the text is not YAML, or a key stands twice.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise ConfigError(f"not valid YAML: {error.problem}", source=source, field=line) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", source=source) from error
    finally:
        loader.dispose()


def _line_of(node: yaml.Node | None, location: Sequence[int | str]) -> int | None:
    """Line (from 1) of the deepest part of ``location`` that stands in the file."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if str(key.value) == str(part)]
            if not found:
                return line
            key_node, node = found[0]
            line = key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


# --- overrides -------------------------------------------------------------------------------------


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``values`` with ``key.key=value`` settings laid over it.

    Parameters
    ----------
    values : mapping
        A configuration as read from YAML; not changed.
    overrides : iterable of str
        ``a.b.c=value``; the value is read as YAML, so ``[1, 2]``, ``true`` and ``{fwhm: 0.2}`` work. A list of keys of
        a block keeps these, with what is said of them.

    Returns
    -------
    dict
        The new configuration, not yet validated.

    Raises
    ------
    ConfigError
        If a setting has no ``=``, an empty key, or goes through something that is not a block.
    """
    result = _copy(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        path = key.strip().split(".")
        if not separator or not all(path):
            raise ConfigError(
                f"{override!r} is not a setting", source="--set", remedy="write it as key.key=value"
            )
        value, _ = parse_yaml(text, source=f"--set {key.strip()}")
        _set_value(result, path, value)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _set_value(container: Any, path: list[str], value: Any) -> None:
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(container, dict):
            key: Any = next((existing for existing in container if str(existing) == part), part)
            if last:
                container[key] = _picked(container.get(key), value)
                return
            if container.get(key) is None:
                container[key] = {}
            container = container[key]
        elif isinstance(container, list) and part.isdigit() and int(part) < len(container):
            if last:
                container[int(part)] = value
                return
            container = container[int(part)]
        else:
            raise ConfigError(
                f"{'.'.join(path[:depth])} is {container!r}, not a block that could hold {part!r}",
                source="--set",
                field=".".join(path),
            )


def _picked(old: Any, value: Any) -> Any:
    """Let a list of keys of a block, such as ``objects=[37, 912]``, keep what the block says of those that it has."""
    if not isinstance(old, Mapping) or not isinstance(value, list) or not value:
        return value
    known = {str(key): key for key in old}
    names = [str(name) for name in value]
    if len(set(names)) < len(names) or known.keys().isdisjoint(names):
        return value
    return {known.get(name, name): old.get(known.get(name)) for name in names}


# --- models ----------------------------------------------------------------------------------------


def _absolute(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    return text if base is None else str(Path(base) / Path(text).expanduser())


def _absolute_pattern(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if base is None:
        return text
    # Braces in the folder's own name are no fields.
    return str(Path(str(base).replace("{", "{{").replace("}", "}}")) / Path(text).expanduser())


FilePath = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
"""A path; a relative one starts at the folder of the configuration."""

FilePattern = Annotated[str, Field(min_length=1), AfterValidator(_absolute_pattern)]
"""A path that may hold ``{fields}`` and the wildcards ``*`` and ``?``."""


class Settings(BaseModel):
    """A block of a configuration: unknown keys are refused and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    extra_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that the file may hold although the model has no such field."""

    galaxy_keys: ClassVar[Mapping[str, str] | None] = None
    """What its objects call the ``redshift`` and ``a_v`` of a table of galaxies; None: it has no objects."""

    @classmethod
    def locate(
        cls,
        location: list[int | str],
        values: Mapping[str, Any],  # noqa: ARG003  # for models that override this
    ) -> list[int | str]:
        """Tell where in the file a problem found at ``location`` was written; models that move values know."""
        return location


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``override`` laid over it, block by block; neither is changed."""
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


ModelT = TypeVar("ModelT", bound=Settings)
_START = "skyloom init writes a configuration to start from"


def read_values(path: str | Path, overrides: Iterable[str] = ()) -> tuple[dict[str, Any], yaml.Node | None]:
    """Read a configuration file and lay the overrides over it, without validating it.

    Parameters
    ----------
    path : str or Path
        A YAML file.
    overrides : iterable of str
        ``a.b.c=value`` settings.

    Returns
    -------
    tuple
        The values, and the node tree for :func:`validate`.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, or is not a block of keys.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError.missing(path, or_else=_START)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", source=str(path), remedy=_START) from error
    values, node = parse_yaml(text, source=str(path))
    if not isinstance(values, dict):
        raise ConfigError(
            "is no configuration", source=str(path), remedy=f"it has no 'key: value' lines; {_START}"
        )
    return apply_overrides(values, overrides), node


def validate(
    values: Mapping[str, Any],
    model: type[ModelT],
    *,
    source: str | None = None,
    base: Path | None = None,
    node: yaml.Node | None = None,
) -> ModelT:
    """Check values against a model; every problem found is told in one message.

    Parameters
    ----------
    values : mapping
        The configuration.
    model : type
        The pydantic model.
    source : str, optional
        File name for messages.
    base : Path, optional
        The folder that relative paths start from; without it they stay as they are.
    node : yaml.Node, optional
        Tells the line of each value.

    Returns
    -------
    model
        The checked configuration.

    Raises
    ------
    ConfigError
        Naming each wrong key with its line, and for an unknown key the nearest known one.
    """
    context = {"base": base.resolve() if base is not None else None}
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        problems = _problems(error, model, values, node)
        if len(problems) == 1:
            field, message = problems[0]
            raise ConfigError(message, source=source, field=field or None) from error
        lines = "".join(
            f"\n  {field}: {message}" if field else f"\n  {message}" for field, message in problems
        )
        raise ConfigError(f"{len(problems)} problems{lines}", source=source) from error


def load_config(
    path: str | Path,
    model: type[ModelT],
    overrides: Iterable[str] = (),
    *,
    galaxies: str | Path | None = None,
) -> ModelT:
    """Read, override and validate a configuration file.

    Parameters
    ----------
    path : str or Path
        A YAML file; relative paths in it start from its folder.
    model : type
        The pydantic model of the recipe.
    overrides : iterable of str
        ``a.b.c=value`` settings.
    galaxies : str or Path, optional
        A table of galaxies, which become the objects of the run; see `skyloom.recipes.galaxies.read_galaxies`.

    Returns
    -------
    model
        The checked configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read or any value is wrong, or the recipe has no objects for a table to name.
    InputError
        If the table cannot be used.
    """
    values, node = read_values(path, overrides)
    if galaxies is not None:
        if model.galaxy_keys is None:
            remedy = "run it without --galaxies"
            raise ConfigError("its recipe takes files, not galaxies", source=str(path), remedy=remedy)
        values = lay_galaxies(values, read_galaxies(galaxies), model.galaxy_keys)
    return validate(values, model, source=str(path), base=Path(path).parent, node=node)


def resolved_yaml(config: Settings) -> str:
    """Write a configuration back as YAML with its defaults spelled out; reading it gives the same run."""
    dumped = config.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(dumped, sort_keys=False, allow_unicode=True, width=100)


# --- messages --------------------------------------------------------------------------------------


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None when nothing is similar."""
    matches = difflib.get_close_matches(name.lower(), [str(item) for item in known], n=1, cutoff=0.6)
    return matches[0] if matches else None


def _problems(
    error: ValidationError, model: type[Settings], values: Mapping[str, Any], node: yaml.Node | None
) -> list[tuple[str, str]]:
    problems: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        location = model.locate(_without_types(item["loc"]), values)
        message = _message(item, model)
        line = _line_of(node, location)
        field = ".".join(str(part) for part in location)
        where = f"{field} (line {line})" if line else field
        if message not in problems.setdefault(where, []):
            problems[where].append(message)
    # A value that may take several forms fails once per form: one line, the forms joined by "or".
    return [(where, " or ".join(messages)) for where, messages in problems.items()]


def _without_types(location: Iterable[int | str]) -> list[int | str]:
    """Leave out the names of types that pydantic puts between the keys where a value may take several forms."""
    types = {"str", "int", "float", "bool", *(model.__name__ for model in Settings.__subclasses__())}
    return [part for part in location if isinstance(part, int) or not (part in types or "[" in part)]


def _message(item: Any, model: type[Settings]) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        key = str(item["loc"][-1])
        known = _known_keys(model, item["loc"][:-1])
        match = nearest(key, known)
        return "unknown key; " + (f"did you mean {match!r}?" if match else f"known are {', '.join(known)}")
    if kind == "missing":
        return "is needed and missing"
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"{value!r} stands where a block of keys is expected"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "literal_error":
        match = nearest(str(value), re.findall(r"'([^']+)'", item["ctx"]["expected"]))
        hint = f"; did you mean {match!r}?" if match else ""
        return f"{value!r} is none of {item['ctx']['expected']}{hint}"
    text = item["msg"][0].lower() + item["msg"][1:]
    return f"{value!r}: {text}" if not isinstance(value, (dict, list)) else text


def _known_keys(model: type[Settings], location: Sequence[int | str]) -> list[str]:
    """The keys of the block at ``location``, found by walking the annotations of the models."""
    candidates: list[Any] = [model]
    for part in location:
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, Settings):
                if part == candidate.__name__:
                    following = [candidate]
                    break
                field = candidate.model_fields.get(str(part))
                following += _models_in(field.annotation) if field else []
        candidates = following or candidates
    keys: dict[str, None] = {}
    for candidate in candidates:
        keys.update(dict.fromkeys(candidate.model_fields) | dict.fromkeys(candidate.extra_keys))
    return list(keys)


def _models_in(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    found: list[type[Settings]] = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found
