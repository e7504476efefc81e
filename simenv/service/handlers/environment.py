"""Answers to queries about the environment: status, pools, devices, engines, reservations."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future

import msgspec

from launcher.process.network_namespace import other_users
from simenv._version import __version__
from simenv.config import known_gateway
from simenv.errors import NotFoundError, OptionError
from simenv.model import PoolInfo, ServiceInfo, StandbyInfo, TaskState
from simenv.process import resident_bytes
from simenv.scheduler.routing import ranks
from simenv.scheduler.views.cluster_info import node_infos
from simenv.service.handlers.metrics import slot_s
from simenv.service.handlers.tasks import newest_completion
from simenv.service.queries import task_views
from simenv.service.queries.devices import described, routing_snapshot, store_noise
from simenv.service.queries.forecast_thread import refresh_starts
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.service import ServiceComponents
from simenv.service.telemetry.recorder import RECORDED
from simenv.wire import codec
from simenv.wire.messages import admin, client as m, metrics, queries
from simenv.wire.messages.explain import Explain, Explained
from simenv.wire.rights import Identity

MOST_EVENTS = 1_000
OTHER_USERS_NS = 60 * 10**9  # age at which other users are read again from /proc


class EnvironmentQueries:
    """Answers about an environment. They change nothing but stored noise documents, recorded
    figures, and the service's drain on a Shutdown."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._other_users: tuple[int, ...] = ()
        self._next_others_ns = 0

    def hello(self, message: m.Hello, identity: Identity, peer: bytes) -> m.ToClient:
        if message.protocol != m.PROTOCOL:
            text = (
                f"client {message.version} speaks protocol {message.protocol}, "
                f"service {__version__} speaks {m.PROTOCOL}"
            )
            hint = "use one simenv version for both"
            return m.Refused(0, [m.Refusal("version", text, hint)])
        results = "" if identity.scope else str(self._service.result_requests.root)
        epoch, name = self._service.state.epoch, self._service.config.name
        newest = newest_completion(self._service, identity.scope)
        limit = self._service.listener.message_bytes(peer)
        node, standbys = self._service.facts.node, self._standbys()
        return m.Welcome(epoch, __version__, name, node, results, newest, limit, standbys)

    def pong(self, message: m.Ping) -> m.Pong:
        return m.Pong(message.request, self._service.state.epoch, self._standbys())

    def _standbys(self) -> tuple[str, ...]:
        waiting = self._service.journal.database.standbys
        return tuple(each.address for each in waiting if each.address)

    def get_status(self, message: m.GetStatus, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from refresh_starts(self._service.starts, identity.owner)
        yield codec.encode(m.Status(message.request, self.status()))

    def status(self) -> ServiceInfo:
        service = self._service
        state, now_ns = service.state, time.monotonic_ns()
        waiting = [pool.queue.head() for pool in state.cluster.pools.values()]
        oldest = min((r.batch.accepted_ns for r in waiting if r is not None), default=now_ns)
        slowest = service.journal.records.slowest_cursor()
        pools, nodes = service.starts.pool_infos(now_ns), node_infos(state)
        present = state.cluster.capacity.limits
        maintenance, telemetry = service.maintenance, service.monitoring.telemetry
        problems = [
            service.lifecycle.store_error,
            maintenance.checkpointer.error if maintenance.checkpointer else "",
            maintenance.backup.error if maintenance.backup else "",
        ]
        emulated, refreshes = service.devices.emulated, service.devices.refreshes
        problems += [] if emulated is None else emulated.problems()
        problems.append(telemetry.error if telemetry else "")
        problems += [] if refreshes is None else refreshes.problems()
        config = service.config
        has_users = bool(config.listen or config.identity.has_users or config.gateway.listen)
        problems += service.result_requests.disk_problems(has_users=has_users)
        problems += [] if service.executor.hooks is None else service.executor.hooks.problems()
        problems.append(task_views.ending(state.limits.end_ns, now_ns))
        problems.append(task_views.exposed(service.facts.exposure, self._users_of_node(now_ns)))
        return ServiceInfo(
            name=service.config.name,
            version=__version__,
            pid=os.getpid(),
            node=service.facts.node,
            epoch=state.epoch,
            up_s=(now_ns - service.lifecycle.started_ns) / 1e9,
            durability=service.config.durability,
            queued=len(state.tasks) - state.tasks.running,
            running=state.tasks.running,
            done=service.facts.ended_before[TaskState.DONE] + state.tasks.ended[TaskState.DONE],
            failed=service.facts.ended_before[TaskState.FAILED]
            + state.tasks.ended[TaskState.FAILED],
            cancelled=service.facts.ended_before[TaskState.CANCELLED]
            + state.tasks.ended[TaskState.CANCELLED],
            expired=service.facts.ended_before[TaskState.EXPIRED]
            + state.tasks.ended[TaskState.EXPIRED],
            lost_attempts=state.tasks.lost_attempts,
            unread=0 if slowest is None else service.completions.newest - slowest,
            oldest_s=(now_ns - oldest) / 1e9,
            slots=present.slots,
            slots_granted=sum(node.slots_granted for node in nodes),
            memory_bytes=present.memory_bytes,
            max_qubits=ranks.widest(service.config.pools, present),
            rss_bytes=resident_bytes(),
            loop_lag_p99_ms=service.monitoring.pass_times.p99_ms(),
            pools=tuple(pools),
            warnings=task_views.warnings(pools, nodes, problems),
            resumed=service.facts.resumed,
            launcher=service.facts.launcher,
            allocation=service.facts.allocation,
            nodes=tuple(nodes),
            max_ranks=ranks.most_ranks_of_all(present),
            end_s=service.facts.end_s,
            longest_pass_ms=service.monitoring.pass_times.longest_ms(),
            isolation=service.config.isolation,
            standbys=tuple(
                StandbyInfo(each.node, each.state) for each in service.journal.database.standbys
            ),
            gateway=known_gateway(config.gateway, service.commands.keys.path.parent),
            slot_s=slot_s(
                service.accounting.usage.counters.pools.values(),
                state.cluster.workers.values(),
                now_ns,
            ),
        )

    def _users_of_node(self, now_ns: int) -> tuple[int, ...]:
        """Ids of other users with processes on this node; empty if the launcher is not exposed.
        /proc is read at most once in OTHER_USERS_NS, however often clients query the status."""
        if self._service.facts.exposure and now_ns >= self._next_others_ns:
            self._next_others_ns = now_ns + OTHER_USERS_NS
            self._other_users = other_users()
        return self._other_users

    def workers(self, message: m.GetWorkers, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from refresh_starts(self._service.starts, identity.owner)
        workers = task_views.workers_view(self._service.state, identity.scope)
        yield codec.encode(m.Workers(message.request, workers, self._pool_infos(identity)))

    def pools(self, message: admin.GetPools, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from refresh_starts(self._service.starts, identity.owner)
        nodes = node_infos(self._service.state)
        yield codec.encode(admin.Pools(message.request, self._pool_infos(identity), nodes))

    def _pool_infos(self, identity: Identity) -> list[PoolInfo]:
        service = self._service
        return service.starts.pool_infos(time.monotonic_ns(), identity.owner)

    def events(self, message: m.GetEvents, scope: str) -> m.Events:
        service, limit = self._service, min(message.limit, MOST_EVENTS)
        events = service.journal.records.events(message.since, limit, scope)
        return m.Events(message.request, events, service.executor.next_event - 1)

    def engines(self, message: queries.GetEngines) -> queries.Engines:
        # This module imports numpy and kernels, which are loaded in a thread.
        from simenv.service.queries.engines import engines_view

        service = self._service
        limits = service.state.cluster.capacity.limits
        return queries.Engines(message.request, engines_view(service.config.pools, limits))

    def explain(self, message: Explain, identity: Identity, _peer: bytes) -> ReplySteps:
        # This module imports numpy and kernels, which are loaded in a thread.
        from simenv.service.queries.explain import explain, forget_check

        service = self._service
        while True:
            now = service.state.cluster.capacity
            result = explain(
                message,
                identity.owner,
                service.config.pools,
                now,
                routing_snapshot(service.state, service.devices),
                service.devices.emulated,
                service.state.estimator,
            )
            if not isinstance(result, Future):
                break
            try:
                yield result
            except GeneratorExit:  # the client has left
                forget_check(result)
                raise
        if isinstance(result, Explained):
            yield from refresh_starts(self._service.starts, identity.owner)
            result = self._with_waits(result, identity)
        yield codec.encode(result)

    def _with_waits(self, result: Explained, identity: Identity) -> Explained:
        """Return an explanation with the time for which the task would wait now."""
        choices = []
        for each in result.explanation.engines:
            pool = self._service.state.cluster.pools.get(each.pool)
            if pool is not None:
                now_ns = time.monotonic_ns()
                us = self._service.starts.new_us(pool, now_ns, identity.owner)
                each = msgspec.structs.replace(
                    each,
                    wait_s=us / 1e6 if us >= 0 else us,
                    wait_off_by=self._service.starts.off_by(each.pool),
                    wait_age_s=self._service.starts.age_us(us, now_ns) / 1e6,
                )
            choices.append(each)
        explanation = msgspec.structs.replace(result.explanation, engines=choices)
        return Explained(result.request, explanation)

    def devices(self, message: queries.GetDevices) -> ReplySteps:
        service = self._service
        return described(service.devices, service.state.cluster.capacity.limits, message)

    def noise(self, message: queries.StoreNoise, identity: Identity, _peer: bytes) -> ReplySteps:
        service = self._service
        return store_noise(service.devices, service.journal, identity.owner, message)

    def series(self, message: metrics.GetSeries) -> ReplySteps:
        telemetry = self._service.monitoring.telemetry
        if telemetry is None:
            raise NotFoundError("this environment stores no series")
        future = telemetry.series(message)
        while not future.done():
            yield future
        yield codec.encode(future.result())

    def figure(
        self, message: metrics.SetDeviceFigure, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        service = self._service
        known = [pool.name for pool in service.config.pools if pool.device or pool.provider]
        telemetry = service.monitoring.telemetry
        if message.device not in known or telemetry is None:
            hint = f"pools with a device: {', '.join(known) or 'none'}"
            raise NotFoundError(f"there is no device {message.device[:64]!r}", hint=hint)
        if message.figure not in RECORDED or not 0.0 <= message.value <= 1.0:
            text = f"figure {message.figure[:64]!r} = {message.value}"
            raise OptionError(text, hint=f"{' or '.join(RECORDED)}, from 0 to 1")
        detail = f"{message.figure} = {message.value:.4f}"
        service.commands.audit.write(identity, "device.figure", message.device, detail)
        future = telemetry.set_figure(message)
        while not future.done():
            yield future
        yield codec.encode(future.result())

    def reservations(
        self, message: admin.GetReservations, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        return self._service.commands.reservations.listed(identity, message)

    def device_terms(
        self,
        message: admin.GetProfile | admin.GetPolicy | admin.GetTarget,
        identity: Identity,
        _peer: bytes,
    ) -> ReplySteps:
        if isinstance(message, admin.GetTarget):
            yield from refresh_starts(self._service.starts, identity.owner)
        yield codec.encode(self._service.commands.reservations.answer(identity, message))

    def shutdown(self, message: m.Shutdown) -> ReplySteps:
        """Store the end for standbys, answer, then drain, which may end the service at once."""
        state = self._service.state
        database = self._service.journal.database
        try:
            database.end_standbys()
        except database.errors as error:  # a standby would undo it
            text = f"the end of the environment cannot be stored: {error}"
            yield codec.encode(
                m.Refused(message.request, [m.Refusal("journal", text, database.hint)])
            )
            return
        held = sum(len(worker.held) for worker in state.cluster.workers.values())
        yield codec.encode(m.Stopping(message.request, held, len(state.tasks) - held))
        self._service.drain(now=message.now)
