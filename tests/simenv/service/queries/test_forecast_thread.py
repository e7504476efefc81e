"""The thread of forecasts leaves the interpreter to the event loop, and ends with the service."""

import threading
from collections.abc import Callable

import pytest

from simenv.service.queries import forecast_thread
from simenv.service.queries.forecast_thread import ForecastStopped, ForecastThread

Pause = Callable[[], object]


def test_thread_sleeps_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    own: list[int] = []
    sleep = forecast_thread.time.sleep

    def slept_by(seconds: float) -> None:
        if threading.get_ident() in own:  # threads of other tests sleep, too
            slept.append(seconds)
        else:
            sleep(seconds)

    def first(pause: Pause) -> list[object]:
        own.append(threading.get_ident())
        return [pause() for _ in range(5)]

    monkeypatch.setattr(forecast_thread.time, "sleep", slept_by)
    monkeypatch.setattr(forecast_thread, "SLICE_NS", -1)
    thread = ForecastThread()
    assert len(thread.run(first).result(60.0)) == 5
    assert slept == [forecast_thread.PAUSE_S] * 5
    monkeypatch.setattr(forecast_thread, "SLICE_NS", 10**15)
    thread.run(lambda pause: [pause() for _ in range(5)]).result(60.0)
    assert len(slept) == 5
    thread.stop()


def test_stop_ends_the_simulation_under_way() -> None:
    thread, begun = ForecastThread(), threading.Event()

    def endless(pause: Pause) -> None:
        while True:
            begun.set()
            pause()

    simulation = thread.run(endless)
    assert begun.wait(60.0)
    thread.stop()
    assert isinstance(simulation.exception(60.0), ForecastStopped)
