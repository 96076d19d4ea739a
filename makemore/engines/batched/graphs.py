"""CUDA graphs of a training step: captured once, then replayed. Not run on a GPU yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

import torch

MAX_QUEUED = 16  # replays that the host may queue before the device has finished them


class Graphs:
    """The captured graphs of one device, by key; all share one private memory pool.

    Captured work must read and write only tensors that outlive the graphs. Its own allocations come
    from the pool. Graphs can share a pool because only one runs at a time and none reads data that
    another one left there.
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
        """Run `work` twice on a side stream, so that libraries initialise, then capture it there.

        The two runs take effect, the capture does not.

        Raises:
            torch.OutOfMemoryError: the work needs more memory than there is; no graph is kept.
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
                # thread_local: other threads may use CUDA meanwhile (an engine on a second GPU).
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    work()
            except RuntimeError as error:
                # When a capture runs out of memory, ending it raises a second error that hides the
                # first one.
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise
            finally:
                torch.cuda.set_stream(before)  # a failed capture may leave the side stream set
            self._graphs[key] = graph

    def replay(self, key: Hashable) -> None:
        """Queue a captured graph on the current stream; wait if MAX_QUEUED replays are unfinished.

        Without a limit the host would queue seconds of work that it cannot stop.
        """
        self._graphs[key].replay()
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._queued.append(event)
        if len(self._queued) > MAX_QUEUED:
            self._queued.popleft().synchronize()
