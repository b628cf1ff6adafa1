"""Run a function on several processes that talk over gloo, and get back what each returns."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.forked import take_own_progress_lock

SECONDS = 60  # a rank that waits forever for another one fails the test


def on_ranks(number: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(*arguments)`` returns on each of several forked processes.

    The environment names rank and meeting point, as a launcher of processes would; the function
    starts its process group itself (`torch.distributed.init_process_group` or a Trainer).
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(number)]
    ranks = [
        context.Process(target=_run, args=(rank, number, port, sender, work, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for rank, (_, sender) in zip(ranks, pipes, strict=True):
        rank.start()
        sender.close()  # so that the end of the process is the end of the pipe
    try:
        found = [_received(receiver) for receiver, _ in pipes]
    finally:
        for rank in ranks:
            rank.join(1)
            rank.kill()
    errors = [error for error, _ in found if error]
    assert not errors, "\n".join(errors)
    return [value for _, value in found]


def _received(receiver: Connection) -> tuple[str | None, Any]:
    if not receiver.poll(SECONDS):
        return "a rank did not answer", None
    try:
        answer = receiver.recv_bytes()
    except EOFError:
        return "a rank died", None
    found: tuple[str | None, Any] = torch.load(io.BytesIO(answer), weights_only=True)
    return found


def _run(
    rank: int,
    number: int,
    port: int,
    sender: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    take_own_progress_lock()
    found = io.BytesIO()
    try:
        torch.save((None, work(*arguments)), found)
    except BaseException:  # the parent shows what went wrong here
        torch.save((traceback.format_exc(), None), found)
    sender.send_bytes(found.getvalue())  # pickled tensors would need this process to live on
    os._exit(0)
