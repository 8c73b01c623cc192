"""Keeps the worker processes of one machine alive, says when they serve, and stops them."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time

import redis
from redis.exceptions import RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError, ConnectError, ModelLoadError, UnreachableError
from beam_serving.io.ownership import STARTING_S, Ownership
from beam_serving.launch.deployed import Deployed
from beam_serving.launch.forking import WorkerProcess, Workers, spawned
from beam_serving.launch.handover import Handover, fingerprint
from beam_serving.launch.preflight import decided_copy, preflight
from beam_serving.launch.runner import Spec
from beam_serving.launch.stop import stop_on_signals
from beam_serving.launch.systemd import tell_ready
from beam_serving.launch.worker import EXIT_CONFIG, EXIT_FAILED, Job, new_deployment
from beam_serving.models.cpu import available_cores
from beam_serving.models.detect import ModelFiles
from beam_serving.models.store import PrivateCopy
from beam_serving.telemetry.busy import BusyBytes
from beam_serving.telemetry.periodic import PeriodicThread
from beam_serving.telemetry.report import (
    FRESH_S,
    LIFETIME_S,
    Report,
    announce,
    asked_to_stop,
    described,
    end_deployment,
    keep_deployment,
    read_reports,
    retract,
    supervised_deployments,
    working_reports,
)
from beam_serving.telemetry.statistics_line import StatisticsLine
from beam_serving.telemetry.stats import State

_log = logging.getLogger(__name__)
_TICK_S = 0.1
_ANNOUNCE_EVERY_S = 1.0
_KEEP_EVERY_S = 1.0
_FIRST_RESTART_S, _LAST_RESTART_S = 0.2, 30.0
_STABLE_AFTER_S = 30.0
_EARLY_DEATHS = 3
_FAULTS_OF_COPIES = 3
"""After so many faults in native code a worker is a copy no more: who causes them might learn where its memory is."""


def may_find_idle_cores(settings: Settings, processes: int, drain: bool) -> bool:
    """Return whether a worker may use the cores of idle ones.

    Not where the operator says how many threads a worker has, where it has no neighbours, or where a backlog is
    drained. A driver is one process: who its workers are is the runner's affair.
    """
    several = processes > 1 and available_cores() > 1 and sys.platform == "linux"
    return several and settings.model.threads == "auto" and not drain


class _Slot:
    """A process's place: its number and its names in the group outlive the processes that fill it, one after the other.

    A worker of the local runner has one name, a driver one for each of the workers that it looks after.
    """

    def __init__(self, place: int, consumers: tuple[str, ...]) -> None:
        self.place = place
        self.consumers = consumers
        self.process: WorkerProcess | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.restart_wait_s = _FIRST_RESTART_S
        self.finished = False


class Supervisor:
    """Runs `workers` processes in one consumer group until it is told to stop or, in a drain, until all is served.

    Each has a consumer name of its own, which it keeps when it is started again after it died: so what it had not
    finished is served by its successor at once, and no other process ever carries that name. With a `driver`, the
    name of a module, there is one process of it instead, which starts the workers itself and ends when one dies. A
    driver that drains the queue every `every_s` says by itself that the service is there, also between drains.
    """

    def __init__(self, spec: Spec, workers: int, driver: str | None = None) -> None:
        settings = spec.settings
        self._settings = settings
        self._spec = spec
        self._deployment = new_deployment(settings.model.path, "" if spec.drain else fingerprint(settings))
        before = Deployed(settings, {}, []) if spec.replace else None
        self._handover = Handover(settings, self._deployment, before)
        self._holding = Ownership(settings)
        self._driver = driver
        self._names = tuple(f"{self._deployment.id}-{index}" for index in range(workers))
        of_processes = [self._names] if driver else [(name,) for name in self._names]
        self._slots = [_Slot(place, names) for place, names in enumerate(of_processes)]
        self._workers = Workers(settings.model.openmp_threads, settings.params.grace_s)
        self._busy = BusyBytes(workers) if may_find_idle_cores(settings, len(self._slots), spec.drain) else None
        self._client: redis.Redis = redis_at(settings).client()
        self._statistics = StatisticsLine(settings.data.streams, settings.data.group)
        self._ready = False
        self._files: ModelFiles | None = None
        self._copy: PrivateCopy | None = None
        self._was_ready = False
        self._early_deaths = 0
        self._faults = 0

    def run(self) -> int:
        """Serve; return the exit code.

        Raises:
            BeamServingError: the service cannot start, or cannot go on for a reason that the operator must fix.
        """
        self._files = preflight(self._settings)
        self._handover.look()
        with stop_on_signals(log=True) as stop:
            try:
                if self._driver is None:
                    self._workers.open()
                if self._decided(stop):
                    self._watch(stop)
            finally:
                graceful = self._stop_workers()
                self._workers.close()
                if self._copy is not None:
                    self._copy.close()
                if self._busy is not None:
                    self._busy.close()
                self._retract()
                self._end_deployment()
                if not self._was_ready:
                    self._give_up_streams()
        _log.info("state DONE: %s", self._statistics.total(self._reports(LIFETIME_S)))
        return 0 if graceful else EXIT_FAILED

    def _decided(self, stop: threading.Event) -> bool:
        """Find out how the model is served; say no where the service was asked to stop meanwhile.

        A first start may try the model for many minutes, in which `stop` finds the service, and its streams are its.

        Raises:
            ModelLoadError: it cannot be served.
        """

        holding = self._holding

        def keep() -> None:
            self._keep_deployment()
            holding.renew(self._client, self._deployment.id, STARTING_S)
            if self._asked_to_stop():
                _log.info("asked to stop: the model is not tried to the end")
                stop.set()

        keep()
        keeping = PeriodicThread("start", _KEEP_EVERY_S, keep)
        try:
            decided = decided_copy(self._settings)
        except ModelLoadError:
            if stop.is_set():
                return False
            raise
        finally:
            keeping.close()
        if decided is not None:
            self._copy = decided.copy
            self._deployment = self._deployment._replace(content=decided.copy.content)
        keep()
        self._refuse_another_model()
        self._workers.need(*(decided[1:] if decided else ()))
        return not stop.is_set()

    def _refuse_another_model(self) -> None:
        """Refuse to serve beside a service of the same name whose answers would be others.

        Raises:
            ConfigError: there is one, and nothing says that this one replaces it.
        """
        name, ours = self._settings.name, self._deployment
        if self._spec.replace or self._settings.data.share:
            return
        try:
            others = supervised_deployments(self._client, name)
        except RedisError as err:
            _log.debug("cannot ask who else serves under this name: %s", err)
            return
        for other in others:
            is_first = other.id != ours.id and other.since <= ours.since and not other.is_dead()
            if is_first and other.content and other.content != ours.content:
                raise ConfigError(
                    f"{name!r} serves another model already: {other.model} (pid {other.pid} on {other.host}), and this "
                    f"one would answer its requests with {ours.model}: `restart` replaces it without a gap; else give "
                    f"this service a name and data: streams of its own, or set data: share: true; a service that died "
                    f"is forgotten within {LIFETIME_S} s"
                )

    def _watch(self, stop: threading.Event) -> None:
        next_announce = next_statistics = next_keep = 0.0
        while not stop.is_set() and not all(slot.finished for slot in self._slots):
            for slot in self._slots:
                self._look_after(slot)
            now = time.monotonic()
            if now >= next_keep:
                self._keep_deployment()
                next_keep = now + _KEEP_EVERY_S
            if not self._ready and self._asked_to_stop():
                # Workers that live end by themselves; between two starts there is none that would.
                _log.info("asked to stop: finishing what is in flight")
                stop.set()
                return
            if not self._ready or now >= next_announce:
                self._say_whether_ready()
                self._statistics.note(self._reports(LIFETIME_S))
                next_announce = now + _ANNOUNCE_EVERY_S
                next_statistics = next_statistics or now + self._settings.params.statistics_s
            if self._ready and now >= next_statistics:
                next_statistics = now + self._settings.params.statistics_s
                self._statistics.log(self._client, self._reports())
            stop.wait(_TICK_S)

    def _start(self, slot: _Slot) -> None:
        job = Job(
            self._for_workers().model_dump_json(),
            self._deployment.id,
            slot.consumers,
            self._spec.arguments,
            self._spec.drain,
            self._spec.log,
            every_s=self._spec.every_s,
            busy=None if self._busy is None else self._busy.file_of(slot.place),
        )
        if self._driver is None:
            slot.process = self._workers.start(job, copy=self._faults < _FAULTS_OF_COPIES)
        else:
            slot.process = spawned(self._driver, job, slot.consumers[0])
        slot.started_at = time.monotonic()

    def _for_workers(self) -> Settings:
        """Return the settings with the private copy of the model: workers that start later serve what the first do."""
        if self._copy is None:
            return self._settings
        model = self._settings.model.model_copy(update={"path": str(self._copy.path)})
        return self._settings.model_copy(update={"model": model})

    def _in_our_words(self, reported: str) -> str:
        return reported.replace(str(self._copy.path), self._settings.model.path) if self._copy else reported

    def _look_after(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is None:
            if not slot.finished and now >= slot.restart_at and self._workers.settled():
                self._start(slot)
            return
        code = slot.process.poll()
        if code is None:
            return
        reported = slot.process.stdout.read().decode(errors="replace").strip() if slot.process.stdout else ""
        slot.process = None
        if self._busy is not None:
            self._busy.clear(slot.place)
        if code == 0 and (self._spec.drain or self._asked_to_stop()):
            if not self._spec.drain and not any(other.finished for other in self._slots):
                _log.info("asked to stop: what was in flight is finished, what is queued stays")
            slot.finished = True
            return
        reported = self._in_our_words(reported)
        if code == EXIT_CONFIG and reported and not self._was_ready:
            raise ConfigError(reported)
        if code == EXIT_FAILED and reported:
            raise ConnectError(reported)
        self._plan_restart(slot, code, now, reported)

    def _plan_restart(self, slot: _Slot, code: int, now: float, reported: str) -> None:
        """Start a dead worker again, the later the younger it dies; what no restart can heal ends the service.

        Once the service has been ready, a worker that cannot start waits and tries again while the others serve.
        """
        self._ready = False
        self._retract()
        if now - slot.started_at > _STABLE_AFTER_S:
            slot.restart_wait_s = _FIRST_RESTART_S
        slot.restart_at = now + slot.restart_wait_s
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._count_early_death(code, how)
        self._faults += code < 0 and code != -signal.SIGKILL
        how = f"{how}: {reported}" if reported else how
        what = "the driver" if self._driver else f"worker {slot.consumers[0]}"
        _log.error("%s died (%s): starting it again in %g s", what, how, slot.restart_wait_s)
        slot.restart_wait_s = min(slot.restart_wait_s * 2, _LAST_RESTART_S)
        try:
            settings = self._for_workers()
            preflight(settings.model_copy(update={"redis": settings.redis.model_copy(update={"wait_s": 0.0})}))
        except UnreachableError as err:
            _log.warning("%s", err)

    def _count_early_death(self, code: int, how: str) -> None:
        """End a service none of whose workers lives long enough to serve.

        Raises:
            ModelLoadError: crashes ended as many of them as are worth a try.
        """
        if code >= 0 or self._was_ready:
            return
        self._early_deaths += 1
        if self._early_deaths >= _EARLY_DEATHS * len(self._slots):
            raise ModelLoadError(
                f"{self._files.model if self._files else self._settings.model.path}: {how} ended {self._early_deaths} "
                f"workers before one of them served (model: engine: {self._settings.model.engine}); try another engine"
            )

    def _end_deployment(self) -> None:
        try:
            end_deployment(self._client, self._settings.name, self._deployment.id)
        except RedisError as err:
            _log.debug("cannot say that the service ended, its key expires by itself: %s", err)

    def _give_up_streams(self) -> None:
        """Let go what was taken for a start that came to nothing, where nobody of the name serves it."""
        try:
            name = self._settings.name
            if not working_reports(self._client, name) and not supervised_deployments(self._client, name):
                self._holding.release(self._client)
        except RedisError as err:
            _log.debug("cannot give up the streams, which are forgotten by themselves: %s", err)

    def _keep_deployment(self) -> None:
        try:
            keep_deployment(self._client, self._settings.name, self._deployment)
        except RedisError as err:
            _log.debug("cannot say that the service is there: %s", err)

    def _asked_to_stop(self) -> bool:
        try:
            return asked_to_stop(self._client, self._settings.name, self._deployment.id)
        except RedisError as err:
            _log.debug("cannot ask whether we shall stop: %s", err)
            return False

    def _reports(self, within_s: float = FRESH_S) -> list[Report]:
        try:
            return read_reports(self._client, self._settings.name, self._deployment.id, within_s)
        except RedisError as err:
            _log.debug("cannot read the workers' numbers: %s", err)
            return []

    def _say_whether_ready(self) -> None:
        reports = self._reports()
        # The report of a worker that died is there until it expires: only those of living processes count.
        living = {slot.process.pid for slot in self._slots if slot.process}
        ours = [report for report in reports if report.pid in living or report.parent_pid in living]
        serving = [report for report in ours if report.states == [State.SERVING]]
        wanted = len(self._names) if self._spec.every_s is None else 1
        ready = len(serving) >= wanted
        if ready and not self._ready:
            _log.info("ready: %s", self._describe(serving[0]))
            tell_ready()
        elif self._ready and not ready and not self._spec.drain and not self._asked_to_stop():
            _log.warning("not ready: %d of %d workers serve", len(serving), len(self._names))
        self._ready = ready
        if ready and not self._was_ready:
            self._holding.name_model(self._client, self._deployment.id)
        self._was_ready = self._was_ready or ready
        if not ready:
            self._retract()
            return
        about = self._settings.about(len(self._names)) | described(serving, wanted)
        try:
            announce(self._client, self._settings.name, about, self._deployment)
            self._handover.fence(self._client)
        except RedisError as err:
            _log.debug("cannot announce that we are ready: %s", err)
        self._handover.complete()

    def _describe(self, worker: Report) -> str:
        settings, files = self._settings, self._files
        assert files is not None  # noqa: S101 - set before any worker starts
        return (
            f"serving {files.model} ({files.format}, engine {worker.engine}) from Redis at {redis_at(settings)}, "
            f"streams {', '.join(settings.data.streams)}, batch size {worker.batch_size}, "
            f"{len(self._names)} worker{'s' if len(self._names) > 1 else ''}"
        )

    def _retract(self) -> None:
        try:
            retract(self._client, self._settings.name, self._deployment.id)
        except RedisError as err:
            _log.debug("cannot retract the readiness key, it expires by itself: %s", err)

    def _stop_workers(self) -> bool:
        """End the workers, the hard way after `grace_s`; say whether all ended by themselves."""
        processes = [slot.process for slot in self._slots if slot.process is not None]
        for process in processes:
            process.terminate()
        give_up_at = time.monotonic() + self._settings.params.grace_s
        graceful = True
        for process in processes:
            try:
                process.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("a worker did not finish in %g s: killing it", self._settings.params.grace_s)
                process.kill()
                process.wait()
                graceful = False
        return graceful
