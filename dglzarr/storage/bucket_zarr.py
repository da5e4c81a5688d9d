"""A folder in a bucket as Zarr reads and writes it: its own store, with errors told in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarr.storage import ObjectStore

from dglzarr.storage.buckets import connect, split, told_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class BucketStore(ObjectStore):  # type: ignore[type-arg]  # generic in newer ones
    """Zarr's store of obstore's, which says what a server refuses."""

    @property
    def _place(self) -> str:
        return f"{self.store.config.get('bucket', 'bucket')}/{self.store.prefix or ''}"

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of one, None where there is none."""
        try:
            with told_of(f"{self._place}/{key}"):
                return await super().get(key, prototype, byte_range)
        except FileNotFoundError:
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects."""
        with told_of(self._place):
            return await super().get_partial_values(prototype, key_ranges)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        with told_of(f"{self._place}/{key}"):
            await super().set(key, value)

    async def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            with told_of(f"{self._place}/{key}"):
                return await super().exists(key)
        except FileNotFoundError:
            return False

    async def delete(self, key: str) -> None:
        """Remove an object."""
        with told_of(f"{self._place}/{key}"):
            await super().delete(key)


def open_zarr_store(uri: str, *, read_only: bool) -> BucketStore:
    """Return a folder in a bucket as Zarr reads and writes it."""
    return BucketStore(connect("/".join(split(uri))), read_only=read_only)
