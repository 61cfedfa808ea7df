"""Turns the command line parser's errors into a few lines that say what is wrong and what was perhaps meant."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from ssl_lightning.catalogue import entries


def explain(message: str, parser: Any) -> str:
    """Say in a few lines what is wrong with an option.

    Args:
        message: Of jsonargparse, which may nest.
        parser: That found the mistake.

    Returns:
        Text without a final newline.
    """
    return message
