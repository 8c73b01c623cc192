"""Code of the operator, by its name in the configuration: `package.module:name`, or `file.py:name` beside the file.

Only the configuration names code, a request never does. A module that is installed is imported by its name. A file is
loaded from where it lies, under its own name, so that what it defines can travel to workers that load it too.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from beam_serving.errors import ConfigError

_FORM = re.compile(r"(?P<place>[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_WANTED = "wants package.module:name, or file.py:name with a path relative to this file"


def is_own_code(text: object) -> bool:
    """Return whether a value of the configuration has the form of such a name."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def own_code(text: object) -> object:
    """Check the form of a reference; the validator of such a key.

    Raises:
        ValueError: it has another form.
    """
    if text in (None, ""):
        return None
    if not is_own_code(text):
        raise ValueError(_WANTED)
    return text


class OwnCode(NamedTuple):
    """A function or class of the operator's.

    Attributes:
        key: the key of the configuration that names it, for messages.
        place: a module's name, or the path of a file that ends in `.py`.
        name: what it is called there.
    """

    key: str
    place: str
    name: str

    @classmethod
    def of(cls, key: str, reference: str) -> OwnCode:
        """Take a reference apart."""
        place, _, name = reference.rpartition(":")
        return cls(key, place, name)

    def __str__(self) -> str:
        return f"{self.key}: {self.place}:{self.name}"

    def look(self) -> None:
        """Look whether it is there, without running it; of a dotted name the packages around it are imported.

        Raises:
            ConfigError: the file or module is missing, is no Python, or nothing in it has the name.
        """
        path = self._file_of_it()
        if path is None:
            return
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except OSError as err:
            raise ConfigError(f"{self}: {path} cannot be read ({err.strerror})") from err
        except (SyntaxError, ValueError) as err:
            raise ConfigError(f"{self}: {path} is no Python: {err}") from err
        names = set(_names(tree.body))
        if self.name not in names and "*" not in names:
            shown = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"
            raise ConfigError(f"{self}: {path} defines no {self.name!r}; it has {shown}")

    def load(self) -> object:
        """Import it, once per process.

        Raises:
            ConfigError: it cannot be imported; the message has the error and its line.
        """
        try:
            module = self._module()
        except ConfigError:
            raise
        except (Exception, SystemExit) as err:  # whatever the operator's code raises
            at = traceback.extract_tb(err.__traceback__)[-1]
            raise ConfigError(f"{self}: {type(err).__name__}: {err} ({at.filename}, line {at.lineno})") from err
        try:
            found: object = getattr(module, self.name)
        except AttributeError as err:
            raise ConfigError(f"{self}: {module.__file__} has no {self.name!r}") from err
        return found

    def _module(self) -> ModuleType:
        if not self.place.endswith(".py"):
            return importlib.import_module(self.place)
        path = Path(self.place).resolve()
        self._check_name(path)
        known = sys.modules.get(path.stem)
        if known is not None:
            return known
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ConfigError(f"{self}: there is no file {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        return module

    def _check_name(self, path: Path) -> None:
        """Refuse a file whose name, that of its module, is somebody else's.

        Raises:
            ConfigError: it is no name, an installed module's, or that of another file which is loaded already.
        """
        if not path.stem.isidentifier():
            raise ConfigError(f"{self}: {path.name!r} is no name of a module; call the file name.py")
        known = sys.modules.get(path.stem)
        if known is not None and getattr(known, "__file__", None) == str(path):
            return
        if known is not None or path.stem in sys.builtin_module_names or _is_elsewhere(path):
            whose = getattr(known, "__file__", None) or "Python's or a package's"
            raise ConfigError(f"{self}: there is a module {path.stem!r} already ({whose}); call the file otherwise")

    def _file_of_it(self) -> Path | None:
        """Return the file of it; None for a module that has none."""
        if self.place.endswith(".py"):
            if not Path(self.place).is_file():
                raise ConfigError(f"{self}: there is no file {self.place}")
            self._check_name(Path(self.place).resolve())
            return Path(self.place)
        try:
            spec = importlib.util.find_spec(self.place)
        except (ImportError, ValueError):
            spec = None
        except Exception as err:  # whatever its package raises, which is imported to find it
            raise ConfigError(f"{self}: {type(err).__name__}: {err}") from err
        if spec is None:
            raise ConfigError(
                f"{self}: there is no module {self.place!r}; install its package, or name its file as {self.place}.py"
            )
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _is_elsewhere(path: Path) -> bool:
    """Return whether another module is found by the name of a file; the folder of a program is looked in, too."""
    found = importlib.util.find_spec(path.stem)
    return found is not None and (found.origin is None or Path(found.origin).resolve() != path)


def _names(nodes: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements of a module bind at its top, also in the branches there."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = (one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
            yield from (one.id for one in stored)
        else:
            blocks = (getattr(node, block, []) for block in ("body", "orelse", "finalbody", "handlers"))
            yield from _names(one for block in blocks for one in block)
