"""The pool gives every function a thread as long as there are threads to give."""

from __future__ import annotations

import threading

from persistasaurus._engine.pool import Pool


def meet(pool: Pool, parties: int) -> None:
    """Have so many functions run in the pool that each waits for all of the others."""
    barrier = threading.Barrier(parties + 1, timeout=10)
    for _ in range(parties):
        pool.submit(barrier.wait)
    barrier.wait()


def test_functions_never_queue_behind_one_another_while_threads_are_free():
    """Not while threads are new, and not in the moment in which one has taken its work or is done."""
    for _ in range(50):
        pool = Pool("test", 3)
        for _ in range(20):
            meet(pool, 3)
        pool.close()


def test_what_is_too_much_waits_and_is_counted():
    # given a pool of one thread that is busy
    pool = Pool("test", 1)
    go, ran = threading.Event(), threading.Event()
    pool.submit(go.wait)
    # when another function comes
    pool.submit(ran.set)
    # then it waits until the thread is free
    assert pool.backlog == 1
    assert not ran.is_set()
    go.set()
    assert ran.wait(10)
    assert pool.backlog == 0
    pool.close()


def test_what_was_refused_a_thread_runs_once_there_is_one(monkeypatch, caplog):
    """The system may have no thread to give for a moment; nothing is forgotten, and it is told once."""
    # given a system that refuses two threads
    start, refusals = threading.Thread.start, [1, 2]

    def refuses(thread: threading.Thread) -> None:
        if refusals:
            refusals.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuses)
    pool = Pool("test", 1)
    first, second = threading.Event(), threading.Event()
    # when two functions come
    pool.submit(first.set)
    pool.submit(second.set)
    # then both wait
    assert pool.backlog == 2
    # when the pool is looked after
    pool.tend()
    # then both run, in the one thread that the pool may have
    assert first.wait(10)
    assert second.wait(10)
    assert caplog.text.count("no thread for a test") == 1
    meet(pool, 1)
    pool.close()


def test_a_thread_that_waits_lends_its_place():
    # given a pool of one thread
    pool = Pool("test", 1)
    inner, outer = threading.Event(), threading.Event()

    def wait_for_another() -> None:
        with pool.lent():
            outer.set() if inner.wait(10) else None

    # when what runs in it waits for what is queued behind it
    pool.submit(wait_for_another)
    pool.submit(inner.set)
    # then both end
    assert outer.wait(10)
    pool.close()


def test_a_function_that_raises_does_not_end_its_thread(caplog):
    pool = Pool("test", 1)
    done = threading.Event()
    pool.submit(lambda: 1 // 0)
    pool.submit(done.set)
    assert done.wait(10)
    assert "unexpected error" in caplog.text
    pool.close()
