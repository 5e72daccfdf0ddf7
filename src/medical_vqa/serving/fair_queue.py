"""A queue that is fair among clients: whoever has received least so far is served next.

This is start-time fair queuing: every client has a virtual time, which advances by what its work has cost, divided by
its weight. The client with the smallest is next, and one that returns after a pause starts at the present virtual time,
so that nobody saves up service. Goyal, Vin and Cheng (1996), "Start-time Fair Queuing", section 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by client; not thread-safe."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._waiting: dict[str, deque[T]] = {}
        self._served: dict[str, float] = {}  # virtual time of each client that waits or was served lately
        self._now = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for items in self._waiting.values():
            yield from items

    @property
    def clients(self) -> int:
        """How many clients have items that wait."""
        return len(self._waiting)

    def waiting(self, client: str) -> int:
        """How many items of a client wait."""
        return len(self._waiting.get(client, ()))

    def heads(self) -> list[T]:
        """The oldest item of every client that waits."""
        return [items[0] for items in self._waiting.values()]

    def push(self, client: str, item: T, weight: float = 1.0) -> None:
        """Add an item at the end of its client's items.

        Args:
            client: Whose item it is.
            item: What waits.
            weight: A client of weight 2 is served twice as much as one of weight 1.
        """
        self._weights[client] = weight
        if client not in self._waiting:
            self._waiting[client] = deque()
            self._served[client] = max(self._served.get(client, 0.0), self._now)
        self._waiting[client].append(item)
        self._size += 1

    def pop(
        self,
        cost: float = 0.0,
        *,
        fits: Callable[[T], bool] = lambda _: True,
        prefer: Callable[[T], bool] | None = None,
    ) -> tuple[str, T]:
        """The next item and its client.

        Args:
            cost: Charged at once; where it is known only later, `charge` does that.
            fits: Which items may be next.
            prefer: Which of a client's items go before its older ones; None: the oldest is next.

        Raises:
            LookupError: No item that fits waits.
        """
        for client in sorted(self._waiting, key=self._served.__getitem__):
            items = self._waiting[client]
            index = next((n for n, item in enumerate(items) if fits(item) and (prefer is None or prefer(item))), None)
            if index is None and prefer is not None:
                index = next((n for n, item in enumerate(items) if fits(item)), None)
            if index is not None:
                break
        else:
            raise LookupError("nothing waits")
        self._now = max(self._now, self._served[client])
        item = items[index]
        del items[index]
        if not items:
            del self._waiting[client]
        self._size -= 1
        self.charge(client, cost)
        return client, item

    def charge(self, client: str, cost: float) -> None:
        """Count what a client's work has cost."""
        self._served[client] = max(self._served.get(client, 0.0), self._now) + cost / self._weights.get(client, 1.0)
        if len(self._served) > 1000 + 2 * len(self._waiting):  # forget the clients whose time has passed
            self._served = {c: t for c, t in self._served.items() if c in self._waiting or t > self._now}
            self._weights = {c: weight for c, weight in self._weights.items() if c in self._served}

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove items, and return them."""
        removed: list[T] = []
        for client, items in list(self._waiting.items()):
            remaining = deque[T]()
            for item in items:
                (removed if unwanted(item) else remaining).append(item)
            if remaining:
                self._waiting[client] = remaining
            else:
                del self._waiting[client]
        self._size -= len(removed)
        return removed
