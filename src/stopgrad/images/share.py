"""What threads may take together of something that is scarce, such as pixels in memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Share:
    """Lets pictures be decoded side by side while they have so many pixels together.

    So the memory is bounded however many cores there are; one picture alone always passes.

    Args:
        most: Pixels at any moment.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many pixels, and takes it for as long as it is open."""
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + pixels <= self.most)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()
