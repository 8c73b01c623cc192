"""How a service takes the place of another of its name without a gap: it serves first, then the other ends.

What a service replaces is what lives under its name when it starts, where its operator says so (`restart`). Beside
that, it fences off what an older configuration left on its host: a service that was started again with another one,
while the first still runs, must not answer every other request with the model of yesterday.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence

import redis

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError
from beam_serving.launch.deployed import Deployed, Living
from beam_serving.telemetry.report import Deployment, ask_to_stop, supervised_deployments

_log = logging.getLogger(__name__)


def fingerprint(settings: Settings) -> str:
    """Return what differs where configurations do; what a drain writes is none of a service's."""
    data = settings.data.model_copy(update={"output": None})
    text = settings.model_copy(update={"data": data}).model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Handover:
    """What one deployment replaces.

    Args:
        settings: of the service.
        deployment: the new one.
        service: the service, of which all that lives when `look` is called is replaced; None where nothing is.
    """

    def __init__(self, settings: Settings, deployment: Deployment, service: Deployed | None) -> None:
        self._settings = settings
        self._deployment = deployment
        self._service = service
        self._before: Living | None = None
        self._fenced: set[str] = set()

    def look(self) -> None:
        """Remember what is to be replaced, before anything of the new deployment is there.

        Raises:
            BeamServingError: Redis or the cluster does not answer.
        """
        if self._service is None:
            return
        with redis_at(self._settings).reachable() as client:
            self._before = self._service.living(client)
        if self._before.count:
            _log.info("to be replaced once this service is ready: %s", self._before)

    @property
    def pending(self) -> bool:
        """Whether something is to be replaced that still serves."""
        return self._before is not None and self._before.count > 0

    def complete(self) -> None:
        """End what is replaced, now that the new deployment serves; a thread of its own waits for it."""
        before, self._before = self._before, None
        if before is not None and before.count:
            threading.Thread(target=self._end, args=(before,), name="handover", daemon=True).start()

    def complete_first(self) -> None:
        """End what is replaced before the new deployment serves, and wait for it: there is no room for both."""
        before, self._before = self._before, None
        if before is not None and before.count:
            _log.warning("there is no room for both: stopping %s before this service starts", before)
            self._end(before)

    def _end(self, before: Living) -> None:
        assert self._service is not None  # noqa: S101 - who looked has one
        try:
            with redis_at(self._settings).reachable() as client:
                self._service.end(client, before)
        except BeamServingError as err:
            _log.error("what this service replaces goes on beside it: %s; `stop` ends both", err)
        else:
            _log.info("replaced: what served before has ended")

    def fence(self, client: redis.Redis) -> None:
        """Ask what serves with an older configuration on this host to stop reading.

        Raises:
            RedisError: the server does not answer.
        """
        for older in self._older(supervised_deployments(client, self._settings.name)):
            if older.id not in self._fenced:
                self._fenced.add(older.id)
                _log.warning("%s serves on this host with an older configuration: asking it to stop", older.id)
            ask_to_stop(client, self._settings.name, older.id)

    def _older(self, others: Sequence[Deployment]) -> list[Deployment]:
        ours = self._deployment
        if not ours.config or self._settings.data.share:
            return []
        return [
            one
            for one in others
            if one.host == ours.host and one.since < ours.since and one.config not in ("", ours.config)
        ]
