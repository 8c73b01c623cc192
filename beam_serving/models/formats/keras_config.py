"""The description inside a Keras file, looked at before Keras builds a model of it: it can name code to run."""

import re
from collections.abc import Iterator, Mapping

_OWN_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|ops|initializers|regularizers|constraints|activations|dtype_policies"
    r"|optimizers|losses|metrics|random)(\.\w+)*)?"
)
_MODELS = re.compile(r"keras(\.src)?(\.models|\.models\.(functional|sequential|model))?|keras\.src")
_MODEL_CLASSES = ("Functional", "Sequential", "Model")
_FUNCTIONS = re.compile(r"keras(\.src)?\.(activations|ops|initializers|regularizers|losses|metrics)(\.\w+)*|builtins")
_CLASS = re.compile(r"[A-Z]\w*|__(keras_tensor|tensor|numpy|bytes|slice|ellipsis)__", re.ASCII)
_CODE = {
    "Lambda": "holds Python code",
    "__lambda__": "holds Python code",
    "TorchModuleWrapper": "holds a pickle",
    "JaxLayer": "holds code of JAX",
    "FlaxLayer": "holds code of JAX",
    "TFSMLayer": "loads another model from a path",
}
_UNNAMED_FUNCTION = "<lambda>"
_REMEDY = "build the model of Keras's own layers, or export it with model.export('directory')"


def reason_to_refuse(config: object) -> str | None:
    """Say why a model is not built from this description, as the end of a sentence about its file.

    None where it names nothing but Keras's own layers, none of which holds code.
    """
    return next(_reasons(config), None)


def _reasons(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _reasons(inner, name)
    if not isinstance(value, dict):
        return
    config = value.get("config")
    name = str(config.get("name", name)) if isinstance(config, dict) else name
    if "class_name" in value:
        yield from _reasons_of_class(value, name)
    if not isinstance(value.get("vocabulary"), list | None):
        yield f"layer {name!r} reads its vocabulary from a file; {_REMEDY}"
    for key, inner in value.items():
        if inner == _UNNAMED_FUNCTION:
            yield f"the {key} of layer {name!r} is a Python lambda, which no file of Keras holds; {_REMEDY}"
        yield from _reasons(inner, name)


def _reasons_of_class(value: Mapping[str, object], name: str) -> Iterator[str]:
    """Look at what Keras makes an object of: a class of its own by its name, or a function that computes."""
    kind, module = value["class_name"], value.get("module")
    if isinstance(kind, str) and kind in _CODE:
        yield f"layer {name!r} ({kind}) {_CODE[kind]}, which is never run; {_REMEDY}"
    if kind == "function":
        function = value.get("config")
        if not (isinstance(module, str) and _FUNCTIONS.fullmatch(module)):
            yield _foreign(f"the function {str(function)[:60]!r}", name, module)
        if not (isinstance(function, str) and function.isidentifier()):
            yield f"{str(function)[:60]!r} in {name!r} is no name of a function; {_REMEDY}"
        return
    is_model = isinstance(module, str) and kind in _MODEL_CLASSES and _MODELS.fullmatch(module)
    if module is not None and not is_model and not (isinstance(module, str) and _OWN_MODULES.fullmatch(module)):
        yield _foreign(str(kind)[:60], name, module)
    if not (isinstance(kind, str) and _CLASS.fullmatch(kind)):
        yield f"{str(kind)[:60]!r} in {name!r} is no layer of Keras; {_REMEDY}"


def _foreign(what: str, name: str, module: object) -> str:
    return f"{what} in {name!r} is of the module {str(module)[:60]!r}, which is not Keras's own; {_REMEDY}"
