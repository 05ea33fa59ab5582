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
    """

    ROWS: ClassVar[tuple[str, ...]] = ()

    @property
    def count(self) -> int:
        """N, the number of Gaussians that it has parameters for; 0 before `begin`."""
        return len(getattr(self, self.ROWS[0]))

    def begin(self, gaussians: Gaussians) -> None:
        """Make the parameters for N Gaussians [N, ...], on their device; from then on it is the identity."""
        self.adopt({name: nn.Parameter(value) for name, value in self._start(gaussians).items()})

    def per_gaussian(self) -> dict[str, nn.Parameter]:
        """The parameters [N, ...], by their name in ``named_parameters()``."""
        return {name: getattr(self, name) for name in self.ROWS}

    def adopt(self, parameters: dict[str, nn.Parameter]) -> None:
        """Put parameters in the place of those that `per_gaussian` gave; N may be another.

        Raises:
            InputError: one is missing, or they are not of one N and the former widths.
        """
        lengths = {len(parameters[name]) for name in self.ROWS if name in parameters}
        widths = all(
            name in parameters and parameters[name].shape[1:] == getattr(self, name).shape[1:] for name in self.ROWS
        )
        if not widths or len(lengths) != 1:
            shapes = {name: list(value.shape) for name, value in parameters.items()}
            remedy = f"give {', '.join(self.ROWS)}, [N, ...] each, as per_gaussian() does"
            raise InputError(f"{shapes} are no parameters of {self.name}", field="parameters", remedy=remedy)
        for name in self.ROWS:
            setattr(self, name, parameters[name])

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """Gaussians at ``times`` [T], each tensor [T, N, ...]; where a time is NaN, the canonical ones.

        Raises:
            InputError: it has parameters for another number of Gaussians.
        """
        return self.pose(gaussians, times).at_each(len(times))

    def _start(self, gaussians: Gaussians) -> dict[str, Tensor]:
        """The first values of the parameters in `ROWS`, by name, [N, ...] each."""
        raise NotImplementedError

    def _check(self, gaussians: Gaussians) -> None:
        if len(gaussians) != self.count:
            raise InputError(
                f"has parameters for {self.count} Gaussians and is asked for {len(gaussians)}",
                field=f"motion {self.name}",
                remedy="call begin(gaussians) before, and adopt() after their number has changed",
            )
