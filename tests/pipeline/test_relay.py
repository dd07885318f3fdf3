"""A function with a callback becomes a generator: order, result, errors, stopping."""

from __future__ import annotations

import threading

import pytest

from sanakit.pipeline.relay import relay


def _work(emit) -> str:
    for number in range(3):
        emit(number)
    return "end"


def test_items_in_order_and_the_result():
    generator = relay(_work)
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            assert stop.value == "end"
            break
    assert seen == [0, 1, 2]


def test_turns_are_strict():
    log: list[str] = []

    def work(emit) -> None:
        for number in range(3):
            log.append(f"work {number}")
            emit(number)

    for item in relay(work):
        log.append(f"caller {item}")
    assert log == [f"{who} {n}" for n in range(3) for who in ("work", "caller")]


def test_an_error_of_the_function_reaches_the_caller():
    def work(emit) -> None:
        emit(1)
        raise ValueError("broken")

    generator = relay(work)
    assert next(generator) == 1
    with pytest.raises(ValueError, match="broken"):
        next(generator)


def test_closing_stops_the_function_and_leaves_no_thread():
    reached: list[int] = []

    def work(emit) -> None:
        for number in range(1000):
            try:
                emit(number)
            except Exception:  # a careless function cannot hold up the stop
                continue
            reached.append(number)

    before = threading.active_count()
    generator = relay(work)
    next(generator)
    next(generator)
    generator.close()
    assert reached == [0]
    assert threading.active_count() == before
