"""What settings name as "module:name": a handler's function, a hook, a class of a source."""

from __future__ import annotations

import importlib
from typing import Any

from glassq.excerpts import MAX_MESSAGE, words_of


def import_named(name: str) -> Any:
    """What `name`, "module:attribute", names; imports the module.

    Raises ValueError, with the reason, for a name of another form and for whatever the module raises, SystemExit too:
    a script that ends with `sys.exit()` must not end the program that imports it.
    """
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ValueError('expected "module:name"')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot be imported: {words_of(error, MAX_MESSAGE)}") from error
