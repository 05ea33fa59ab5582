"""Motion models that keep parameters of their own for each Gaussian, and let them grow with the Gaussians."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .errors import InputError
from .gaussians import Gaussians
from .motion import Motion


class PerGaussian(Motion):
    """A motion model with parameters whose first axis is N, the number of Gaussians.

    A subclass names them in `ROWS` and makes them in `_start`. The trainer calls `begin` once, copies rows of
    `per_gaussian` along with the Gaussians' own when it relocates or adds Gaussians, and hands new tensors to `adopt`.
    Buffers with a row for each Gaussian, which are not trained, are named in `CARRIED` and made, copied and handed
    over in the same way.
    """

    ROWS: ClassVar[tuple[str, ...]] = ()
    CARRIED: ClassVar[tuple[str, ...]] = ()

    @property
    def count(self) -> int:
        """N, the number of Gaussians that it has parameters for; 0 before `begin`."""
        return len(getattr(self, (*self.ROWS, *self.CARRIED)[0]))

    def begin(self, gaussians: Gaussians) -> None:
        """Make the parameters for N Gaussians [N, ...], on their device; from then on it is the identity."""
        rows = self._start(gaussians)
        self.adopt({name: value if name in self.CARRIED else nn.Parameter(value) for name, value in rows.items()})

    def per_gaussian(self) -> dict[str, nn.Parameter]:
        """The parameters [N, ...], by their name in ``named_parameters()``."""
        return {name: getattr(self, name) for name in self.ROWS}

    def carried(self) -> dict[str, Tensor]:
        """The buffers [N, ...] that are copied with the Gaussians, by their name in ``named_buffers()``."""
        return {name: getattr(self, name) for name in self.CARRIED}

    def adopt(self, parameters: dict[str, nn.Parameter] | dict[str, Tensor]) -> None:
        """Put tensors in the place of those that `per_gaussian` and `carried` gave; N may be another.

        Raises:
            InputError: one is missing, or they are not of one N and the former widths.
        """
        names = (*self.ROWS, *self.CARRIED)
        lengths = {len(parameters[name]) for name in names if name in parameters}
        widths = all(
            name in parameters and parameters[name].shape[1:] == getattr(self, name).shape[1:] for name in names
        )
        if not widths or len(lengths) != 1:
            shapes = {name: list(value.shape) for name, value in parameters.items()}
            given = " and ".join(
                part for part, rows in (("per_gaussian()", self.ROWS), ("carried()", self.CARRIED)) if rows
            )
            remedy = f"give {', '.join(names)}, [N, ...] each, as {given} does"
            raise InputError(f"{shapes} are no parameters of {self.name}", field="parameters", remedy=remedy)
        for name in names:
            setattr(self, name, parameters[name])

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """Gaussians at ``times`` [T], each tensor [T, N, ...]; where a time is NaN, the canonical ones.

        Raises:
            InputError: it has parameters for another number of Gaussians.
        """
        return self.pose(gaussians, times).at_each(len(times))

    def _start(self, gaussians: Gaussians) -> dict[str, Tensor]:
        """The first values of what `ROWS` and `CARRIED` name, [N, ...] each."""
        raise NotImplementedError

    def _check(self, gaussians: Gaussians) -> None:
        if len(gaussians) != self.count:
            raise InputError(
                f"has parameters for {self.count} Gaussians and is asked for {len(gaussians)}",
                field=f"motion {self.name}",
                remedy="call begin(gaussians) before, and adopt() after their number has changed",
            )
