"""Hosts on a Ray cluster: one for each GPU, and one for all CPU cores of a node without GPUs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import makemore
from makemore.data import Corpus, Examples
from makemore.engines import Envelope, make_engine
from makemore.engines.fleet.fleet import Fleet
from makemore.engines.fleet.host import Host, Worker
from makemore.errors import UserError, one_line

logger = logging.getLogger(__name__)
LOCAL = "local"  # the address of a cluster of this machine only, for one launch
LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT = 5.0  # seconds
MAX_FAILED_STARTS = 3  # of the worker of a node
# Ray reads these when it is imported. Values that the user has set are kept.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # turns off a warning; workers name their device
}
LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # without it, Ray 2.60 listens on all interfaces
    "RAY_AUTH_MODE": "token",
}


def ray_fleet(
    address: str,
    corpus: Corpus,
    capacity: int | None,
    envelope: Envelope,
    device: str,
    gpu_capacity: int,
) -> Fleet:
    """Connect to a Ray cluster, and return a fleet of hosts on all its nodes.

    Nodes may join and leave while the fleet trains.

    Args:
        address: HOST:PORT of a cluster, "auto" for the one that this machine belongs to, or LOCAL.
            LOCAL starts one that listens on the loopback interface and ends with the fleet.
        corpus, capacity, envelope, device, gpu_capacity: see `RayCluster`.

    Raises:
        UserError: ray is not installed, the cluster cannot be reached, or a flag is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} cannot be used with Ray; use auto, cpu or cuda.")
    _connect(address, capacity)
    cluster = RayCluster(corpus, capacity, envelope, device, gpu_capacity)
    if device == "cuda" and not cluster.has_gpu:
        cluster.close()
        raise UserError("no node of the Ray cluster has a GPU; use --device auto or cpu.")
    return Fleet(cluster.find_hosts, len(corpus.vocab), cluster.close)


def _connect(address: str, cpus: int | None) -> None:
    for name, value in {**SETTINGS, **(LOCAL_SETTINGS if address == LOCAL else {})}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs the package ray; install it with: pip install ray") from None

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {"address": "local", "num_cpus": cpus}  # no other cluster of this machine
        options |= {"include_dashboard": False, "_node_ip_address": LOOPBACK}
    else:
        _check_reachable(address)
        # The nodes need the same versions of Python and of the dependencies, but not makemore.
        options |= {"address": address, "runtime_env": {"py_modules": [makemore]}}
    try:
        ray.init(**options)
    except Exception as error:  # of several kinds, for example ConnectionError and RuntimeError
        where = "on this machine cannot be started" if address == LOCAL else f"at {address} failed"
        raise UserError(
            f"the Ray cluster {where}: {one_line(error)}. A cluster with a token needs "
            "RAY_AUTH_MODE=token and the same token here."
        ) from None


def _check_reachable(address: str) -> None:
    """Refuse an address that nothing listens on; `ray.init` would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not (host and colon and port.isdigit()):
        raise UserError(f"Ray address {address!r} must be HOST:PORT, auto or {LOCAL}.")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}); start one with ray start --head, or "
            f"give --ray {LOCAL}."
        ) from None


class RayWorker(Worker):
    """The worker of one host, as a Ray actor.

    Args:
        corpus: from Ray's object store, with read-only arrays.
        capacity: number of models to train at once.
        envelope: the largest model that will be admitted.
        device: "cpu", or "cuda:0" for the GPU that Ray gave to this actor.
    """

    def __init__(self, corpus: Corpus, capacity: int, envelope: Envelope, device: str) -> None:
        torch.set_num_threads(1)  # the slots are the parallelism
        super().__init__(lambda: make_engine(device, _writable(corpus), capacity, envelope))


def _writable(corpus: Corpus) -> Corpus:
    """Return a corpus with its own arrays; numba would compile again for read-only ones."""

    def copy(examples: Examples) -> Examples:
        return Examples(np.array(examples.stream), np.array(examples.positions))

    # The engines copy the arrays of a teacher themselves.
    return replace(corpus, train=copy(corpus.train), dev=copy(corpus.dev))


class RayHost:
    """A host whose worker is a Ray actor.

    Attributes:
        is_closed: the worker is gone, and its node may get another one.
        has_answered: the worker has started.
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self.is_closed = False
        self.has_answered = False
        self._actor = actor

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the worker."""
        future: Future[Any] = getattr(self._actor, method).remote(*args).future()
        future.add_done_callback(self._note_answer)
        return future

    def _note_answer(self, future: Future[Any]) -> None:
        self.has_answered = self.has_answered or future.exception() is None

    def is_lost(self, error: BaseException) -> bool:
        """Return whether the actor or its node is gone."""
        import ray.exceptions

        # A RayTaskError is an exception of the worker's own code.
        is_bug = isinstance(error, ray.exceptions.RayTaskError)
        return isinstance(error, ray.exceptions.RayError) and not is_bug

    def close(self) -> None:
        """End the actor."""
        import ray

        self.is_closed = True
        ray.kill(self._actor)


class RayCluster:
    """The nodes of a Ray cluster, each with its hosts.

    Args:
        corpus: the train and dev splits; copied once to each node.
        capacity: number of models that a host trains at once; None means one on each CPU core,
            and `gpu_capacity` on a GPU.
        envelope: the largest model that will be admitted.
        device: "auto", "cpu" or "cuda".
        gpu_capacity: see `capacity`.
    """

    def __init__(
        self,
        corpus: Corpus,
        capacity: int | None,
        envelope: Envelope,
        device: str,
        gpu_capacity: int,
    ) -> None:
        import ray

        self._ray = ray
        self._corpus = ray.put(corpus)
        self._capacity = capacity
        self._envelope = envelope
        self._device = device
        self._gpu_capacity = gpu_capacity
        self._hosts: dict[str, RayHost] = {}
        self._failures: Counter[str] = Counter()

    def find_hosts(self) -> Sequence[Host]:
        """Start a worker on each node that has none; returns the new hosts.

        A node that failed to start a worker MAX_FAILED_STARTS times in a row is left out.

        Raises:
            UserError: all nodes are left out.
        """
        new = []
        for node in self._ray.nodes():
            if not node["Alive"]:
                continue
            for number in range(self._n_gpus(node)):
                new += self._start(node, f"GPU {number}", {"num_gpus": 1, "num_cpus": 0}, "cuda:0")
            cpus = int(node["Resources"].get("CPU", 0))
            if cpus and not self._n_gpus(node) and self._device != "cuda":
                new += self._start(node, "CPU", {"num_cpus": cpus}, "cpu")
        return new

    def _n_gpus(self, node: dict[str, Any]) -> int:
        return 0 if self._device == "cpu" else int(node["Resources"].get("GPU", 0))

    def _start(
        self, node: dict[str, Any], what: str, needs: dict[str, int], device: str
    ) -> list[RayHost]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        name = f"{node['NodeManagerHostname']} {what} ({node['NodeID'][:6]})"
        old = self._hosts.get(name)
        if old is not None and not old.is_closed:
            return []
        if old is not None and self._is_left_out(name, old):
            return []
        default = needs["num_cpus"] if device == "cpu" else self._gpu_capacity
        actor = (
            self._ray.remote(RayWorker)
            .options(
                **needs,
                max_restarts=0,  # a restarted worker would have lost its models
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(self._corpus, self._capacity or default, self._envelope, device)
        )
        host = RayHost(name, actor)
        self._hosts[name] = host
        return [host]

    def _is_left_out(self, name: str, old: RayHost) -> bool:
        """Count the failed starts of a node's workers; returns whether it gets no other one."""
        if self._failures[name] < MAX_FAILED_STARTS:
            self._failures[name] = 0 if old.has_answered else self._failures[name] + 1
            if self._failures[name] == MAX_FAILED_STARTS:
                logger.warning("Ray node %s is left out: its worker does not start.", name)
        is_left_out = self._failures[name] >= MAX_FAILED_STARTS
        if is_left_out and all(host.is_closed for host in self._hosts.values()):
            raise UserError(
                "no Ray node can start a worker, for the reasons above; the nodes need the same "
                "versions of Python and of the packages as here."
            )
        return is_left_out

    @property
    def has_gpu(self) -> bool:
        """Whether a node of the cluster has a GPU."""
        return any(self._n_gpus(node) for node in self._ray.nodes() if node["Alive"])

    def close(self) -> None:
        """Disconnect from the cluster; one that LOCAL started ends."""
        self._ray.shutdown()
