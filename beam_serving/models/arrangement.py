"""A model of one engine with the names and the order that its own framework has for inputs and outputs."""

import numpy as np

from beam_serving.models.base import EngineModel, Widening, type_name

Port = tuple[int, str]
"""The place of an input or output in an engine's form of the model, and its name in the model's own framework."""


class _Arranged:
    """A model with the names and the order of another form of it."""

    def __init__(self, model: EngineModel, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        self.engine = model.engine
        self.facts = model.facts
        self.inputs = tuple(model.inputs[place]._replace(name=name) for place, name in inputs)
        self.outputs = tuple(model.outputs[place]._replace(name=name) for place, name in outputs)
        self._model, self._ports = model, (inputs, outputs)
        self._places = [place for place, _ in outputs]
        self._order = sorted(range(len(inputs)), key=lambda index: inputs[index][0])

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """See `EngineModel.infer`."""
        outputs = self._model.infer([arrays[index] for index in self._order])
        return [outputs[place] for place in self._places]

    def freed(self) -> EngineModel | None:
        """See `EngineModel.freed`."""
        freed = self._model.freed()
        return freed and _Arranged(freed, *self._ports)

    def widened(self, threads: int) -> EngineModel | None:
        """See `Widening.widened`."""
        widened = self._model.widened(threads) if isinstance(self._model, Widening) else None
        return widened and _Arranged(widened, *self._ports)

    def compile(self) -> None:
        """See `EngineModel.compile`."""
        self._model.compile()

    def settle(self) -> None:
        """See `EngineModel.settle`."""
        self._model.settle()


def ports_like(model: EngineModel, own: EngineModel) -> tuple[tuple[Port, ...], tuple[Port, ...]] | str:
    """Return the places and names that make a model look like its own framework's form of it; why not, where it cannot.

    Where the names are the same these tell what belongs together, else the order does.
    """
    ports = []
    for what, some, others in (("input", model.inputs, own.inputs), ("output", model.outputs, own.outputs)):
        if len(some) != len(others):
            return f"it has {len(some)} {what}s where {own.engine} has {len(others)}"
        names = [spec.name for spec in some]
        by_name = sorted(names) == sorted(spec.name for spec in others) and len(set(names)) == len(names)
        places = [names.index(spec.name) if by_name else place for place, spec in enumerate(others)]
        for place, spec in zip(places, others, strict=True):
            if some[place].dtype != spec.dtype:
                types = f"{type_name(some[place].dtype)} where {own.engine} has {type_name(spec.dtype)}"
                return f"{what} {spec.name!r} is {types}"
        ports.append(tuple(zip(places, (spec.name for spec in others), strict=True)))
    return ports[0], ports[1]


def arrange(model: EngineModel, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> EngineModel:
    """Return a model whose inputs and outputs have other names and another order; nothing given leaves it as it is."""
    if not inputs or (
        [*inputs] == [*enumerate(spec.name for spec in model.inputs)]
        and [*outputs] == [*enumerate(spec.name for spec in model.outputs)]
    ):
        return model
    return _Arranged(model, inputs, outputs)
