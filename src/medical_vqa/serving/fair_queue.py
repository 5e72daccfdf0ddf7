"""A queue that is fair among tenants and among the clients of each: whoever has received least so far is served next.

This is start-time fair queuing in two levels: every tenant, and within it every client, has a virtual time, which
advances by what its work has cost, a tenant's divided by its weight. The smallest is next, and one that returns after a
pause starts at the present virtual time, so that nobody saves up service. Goyal, Vin and Cheng (1996), "Start-time Fair
Queuing", sections 2 and 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_REMEMBERED = 1000  # tenants and clients without waiting work whose virtual time is not behind


class _Clock:
    """The virtual times of some peers."""

    def __init__(self) -> None:
        self.now = 0.0
        self._times: dict[str, float] = {}

    def of(self, name: str) -> float:
        return max(self._times.get(name, 0.0), self.now)

    def enter(self, name: str) -> None:
        """One that has nothing waiting now has."""
        self._times[name] = self.of(name)

    def serve(self, name: str) -> None:
        """One is served: nobody that comes later starts before it."""
        self.now = max(self.now, self._times.get(name, 0.0))

    def advance(self, name: str, cost: float) -> None:
        self._times[name] = self.of(name) + cost
        if len(self._times) > _REMEMBERED:
            self._times = {name: time for name, time in self._times.items() if time > self.now}


class FairQueue(Generic[T]):
    """Items by tenant and client; not thread-safe."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._waiting: dict[str, dict[str, deque[T]]] = {}
        self._tenants = _Clock()
        self._clients: dict[str, _Clock] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for clients in self._waiting.values():
            for items in clients.values():
                yield from items

    @property
    def tenants(self) -> int:
        """How many tenants have items that wait."""
        return len(self._waiting)

    @property
    def clients(self) -> int:
        """How many clients have items that wait."""
        return sum(map(len, self._waiting.values()))

    def waiting(self, tenant: str) -> int:
        """How many items of a tenant wait."""
        return sum(map(len, self._waiting.get(tenant, {}).values()))

    def is_full_for(self, tenant: str, size: int) -> bool:
        """Whether a tenant must come back later: what others have waiting takes nothing of its part of the queue.

        Args:
            tenant: Who has a further item.
            size: Items that may wait; twice as many where several tenants have some.
        """
        own = self.waiting(tenant)
        tenants = self.tenants + (own == 0)
        return len(self) >= 2 * size or (len(self) >= size and own >= size / tenants)

    def heads(self) -> list[T]:
        """The oldest item of every client that waits."""
        return [items[0] for clients in self._waiting.values() for items in clients.values()]

    def order(self, tenant: str, client: str = "") -> tuple[float, float]:
        """When the work of a client is next: before that of any client with a greater value."""
        clock = self._clients.get(tenant)
        return self._tenants.of(tenant), clock.of(client) if clock is not None else 0.0

    def first(self) -> tuple[float, float] | None:
        """The order of the client that `pop` would serve; None: nothing waits."""
        names = next(self._in_order(), None)
        return self.order(*names) if names is not None else None

    def push(self, tenant: str, item: T, weight: float = 1.0, *, client: str = "") -> None:
        """Add an item at the end of its client's items.

        Args:
            tenant: Whose item it is.
            item: What waits.
            weight: A tenant of weight 2 is served twice as much as one of weight 1.
            client: Which of the tenant's clients has sent it.
        """
        self._weights[tenant] = weight
        if tenant not in self._waiting:
            self._waiting[tenant] = {}
            self._tenants.enter(tenant)
        clients = self._waiting[tenant]
        if client not in clients:
            clients[client] = deque()
            self._clients.setdefault(tenant, _Clock()).enter(client)
        clients[client].append(item)
        self._size += 1

    def pop(
        self,
        cost: float = 0.0,
        *,
        fits: Callable[[T], bool] = lambda _: True,
        prefer: Callable[[T], bool] | None = None,
    ) -> tuple[str, T]:
        """The next item and its tenant.

        Args:
            cost: Charged at once; where it is known only later, `charge` does that.
            fits: Which items may be next.
            prefer: Which of a client's items go before its older ones; None: the oldest is next.

        Raises:
            LookupError: No item that fits waits.
        """
        for tenant, client in self._in_order():
            items = self._waiting[tenant][client]
            index = next((n for n, item in enumerate(items) if fits(item) and (prefer is None or prefer(item))), None)
            if index is None and prefer is not None:
                index = next((n for n, item in enumerate(items) if fits(item)), None)
            if index is not None:
                break
        else:
            raise LookupError("nothing waits")
        self.serve(tenant, client)
        item = items[index]
        del items[index]
        self._remove_if_empty(tenant, client)
        self._size -= 1
        self.charge(tenant, cost, client=client)
        return tenant, item

    def serve(self, tenant: str, client: str = "") -> None:
        """Work of a client begins, or continues after others."""
        self._tenants.serve(tenant)
        self._clients.setdefault(tenant, _Clock()).serve(client)

    def charge(self, tenant: str, cost: float, *, client: str = "") -> None:
        """Count what a client's work has cost."""
        self._tenants.advance(tenant, cost / self._weights.get(tenant, 1.0))
        self._clients.setdefault(tenant, _Clock()).advance(client, cost)
        if len(self._clients) > _REMEMBERED:
            self._clients = {name: clock for name, clock in self._clients.items() if name in self._waiting}
            self._weights = {name: weight for name, weight in self._weights.items() if name in self._waiting}

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove items, and return them."""
        removed: list[T] = []
        for tenant, client in list(self._in_order()):
            items = self._waiting[tenant][client]
            remaining = deque(item for item in items if not unwanted(item))
            if len(remaining) < len(items):
                removed += [item for item in items if unwanted(item)]
                self._waiting[tenant][client] = remaining
                self._remove_if_empty(tenant, client)
        self._size -= len(removed)
        return removed

    def _in_order(self) -> Iterator[tuple[str, str]]:
        """Tenants and their clients that wait, the next one first."""
        for tenant in sorted(self._waiting, key=self._tenants.of):
            clock = self._clients.setdefault(tenant, _Clock())
            for client in sorted(self._waiting[tenant], key=clock.of):
                yield tenant, client

    def _remove_if_empty(self, tenant: str, client: str) -> None:
        if not self._waiting[tenant][client]:
            del self._waiting[tenant][client]
        if not self._waiting[tenant]:
            del self._waiting[tenant]
