"""The description inside a Keras file, looked at before Keras builds a model of it: it can name code to run."""

import re
from collections.abc import Iterator
from typing import Any

_OWN_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|models|ops|initializers|regularizers|constraints|activations|dtype_policies"
    r"|optimizers|losses|metrics|random)(\.\w+)*)?"
)
_CODE = {
    "Lambda": "holds Python code",
    "__lambda__": "holds Python code",
    "TorchModuleWrapper": "holds a pickle",
    "JaxLayer": "holds code of JAX",
    "FlaxLayer": "holds code of JAX",
    "TFSMLayer": "loads another model from a path",
}
_UNNAMED_FUNCTION = "<lambda>"


def reason_to_refuse(config: Any) -> str | None:
    """Says why a model is not built from this description, as the end of a sentence about its file.

    None where it names nothing but Keras's own layers, none of which holds code.
    """
    return next(_reasons(config), None)


def _reasons(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _reasons(inner, name)
    if not isinstance(value, dict):
        return
    kind, module = value.get("class_name"), value.get("module")
    config = value.get("config")
    name = str(config.get("name", name)) if isinstance(config, dict) else name
    remedy = "build the model of Keras's own layers, or export it with model.export('directory')"
    if isinstance(kind, str) and kind in _CODE:
        yield f"layer {name!r} ({kind}) {_CODE[kind]}, which is never run; {remedy}"
    if module is not None and not (isinstance(module, str) and _OWN_MODULES.fullmatch(module)):
        yield f"{kind} in {name!r} is of the module {str(module)[:60]!r}, which is not Keras's own; {remedy}"
    if isinstance(value.get("vocabulary"), str):
        yield f"layer {name!r} reads its vocabulary from a file; {remedy}"
    for key, inner in value.items():
        if inner == _UNNAMED_FUNCTION:
            yield f"the {key} of layer {name!r} is a Python lambda, which no file of Keras holds; {remedy}"
        yield from _reasons(inner, name)
