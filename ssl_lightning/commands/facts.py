"""Facts of the data, handed to whatever class has an argument of that name."""

import inspect
from typing import Any

from ssl_lightning.data.base import FACTS, DataModule
from ssl_lightning.engine.naming import arguments


def fill_in(class_type: type, given: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of the data that a class has an argument for, where the user left its default.

    Args:
        class_type: To be built.
        given: Its arguments, defaults among them.
        facts: Of the data, by name.

    Raises:
        ValueError: If the class requires a fact that the data do not have.
    """
    parameters = parameters_of(class_type)
    known = set(arguments(class_type)) & parameters.keys()
    for name in sorted(known & set(FACTS) - facts.keys()):
        if parameters[name].default is inspect.Parameter.empty and given.get(name) is None:
            raise ValueError(
                f"`{class_type.__name__}` must know `{name}`, which these data do not have (they have "
                f"{', '.join(facts) or 'no facts'}); choose another class, or data with it."
            )
    return {
        name: facts[name]
        for name in known & facts.keys()
        if name not in given or given[name] is None or given[name] == parameters[name].default
    }


def parameters_of(class_type: type) -> dict[str, inspect.Parameter]:
    """Return a class's constructor arguments by name, those of its bases included."""
    return {
        name: parameter
        for owner in class_type.__mro__[::-1]
        if "__init__" in vars(owner)
        for name, parameter in inspect.signature(vars(owner)["__init__"]).parameters.items()
    }


def fact_names() -> list[str]:
    """Return the names of facts of data: ours, and those that strangers' data modules name."""
    found = list(FACTS)
    kinds = [DataModule]
    while kinds:
        kind = kinds.pop()
        found += getattr(kind, "fact_names", ())
        kinds += kind.__subclasses__()
    return list(dict.fromkeys(found))
