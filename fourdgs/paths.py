"""Camera paths."""

from .cameras import orbit

__all__ = ["orbit"]
