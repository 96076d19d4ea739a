"""CUDA graphs of a training step: captured once, replayed for every step after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

import torch

AHEAD = 16  # replays that the host may queue before the device has done them


class Graphs:
    """Captured work of one device, by key; all graphs share one private memory pool.

    Captured work must read and write only tensors that outlive the graphs. What it allocates itself comes from the
    pool, which the graphs may share because no more than one runs at a time and none reads what another left there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._queued: deque[torch.cuda.Event] = deque()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._graphs

    def capture(self, key: Hashable, work: Callable[[], None]) -> None:
        """Run `work` twice on the side stream, so that libraries set themselves up, then capture it there.

        The two runs have their effects; the capture has none.

        Raises:
            torch.OutOfMemoryError: what the work allocates does not fit; no graph is kept.
        """
        with torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):
                for _ in range(2):
                    work()
            before.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                # thread_local: another thread may use CUDA meanwhile, for example an engine on a second GPU.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    work()
            except RuntimeError as error:
                # Ending a capture that ran out of memory raises an error of its own over the one that tells why.
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise
            finally:
                torch.cuda.set_stream(before)  # which a capture that failed may not have done
            self._graphs[key] = graph

    def replay(self, key: Hashable) -> None:
        """Queue one run of a captured graph on the current stream; waits only when far ahead of the device.

        Without that wait the host would queue seconds of work, and could not stop it.
        """
        self._graphs[key].replay()
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._queued.append(event)
        if len(self._queued) > AHEAD:
            self._queued.popleft().synchronize()
