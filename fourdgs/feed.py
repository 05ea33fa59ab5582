"""The true pictures of a training, where its steps want them: beside the model, or sent to it ahead of need."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

RESIDENT_SHARE = 0.5  # of a GPU's free memory, that the pictures may take for good; the rest is for rendering


class Feed:
    """Pictures in 8 bits, kept on the device where they fit, else in pinned memory and streamed a step ahead.

    Args:
        rgb: uint8 [n, H, W, 3].
        device: of the training.
    """

    def __init__(self, rgb: Tensor, device: torch.device):
        self.device, self.streamed = device, False
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.streamed = rgb.numel() > RESIDENT_SHARE * free
        self._rgb = _pinned(rgb) if self.streamed else rgb.to(device)
        self._rows = torch.empty(0, 0, dtype=torch.int64)
        self._here = self._rows
        self._taken = 0
        if self.streamed:
            self._side = torch.cuda.Stream(device)
            self._buffers: list[Tensor] = []
            self._sent: list[torch.cuda.Event] = []

    def __len__(self) -> int:
        return len(self._rgb)

    @property
    def where(self) -> str:
        """Where the pictures are, in words for the log."""
        size = f"{self._rgb.numel() / 2**20:.0f} MB of pictures"
        if self.streamed:
            return f"{size} do not fit on the GPU: streamed from {'pinned' if self._rgb.is_pinned() else 'host'} memory"
        return f"{size} on {'the GPU' if self.device.type == 'cuda' else 'the host'}"

    def begin(self, rows: Tensor) -> None:
        """Say which frames the coming steps will see, int64 [steps, B] on the host."""
        self._rows, self._taken = rows, 0
        if not self.streamed:
            self._here = rows.to(self.device, non_blocking=True)
        elif len(rows):
            size = (rows.shape[1], *self._rgb.shape[1:])
            if not self._buffers or self._buffers[0].shape != size:
                self._buffers = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(2)]
                self._sent = [torch.cuda.Event(), torch.cuda.Event()]
                self._whole = torch.arange(len(rows[0]), device=self.device)
            self._send(0)

    def next(self) -> tuple[Tensor, Tensor]:
        """Of the next step: a store of pictures uint8 [m, H, W, 3], and the rows there of its frames [B].

        What was given before may be overwritten.
        """
        step, self._taken = self._taken, self._taken + 1
        if not self.streamed:
            return self._rgb, self._here[step]
        torch.cuda.current_stream(self.device).wait_event(self._sent[step % 2])
        if step + 1 < len(self._rows):
            self._send(step + 1)
        return self._buffers[step % 2], self._whole

    def pictures(self, rows: Tensor) -> Tensor:
        """Pictures by their number, uint8 [B, H, W, 3] on the device."""
        return self._rgb[rows.to(self._rgb.device)].to(self.device)

    def _send(self, step: int) -> None:
        """Copy a step's pictures to the device, beside the work that goes on there."""
        # The buffer's last reader has been asked for already, on the main stream: the copies start behind it.
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            for place, row in enumerate(self._rows[step].tolist()):
                self._buffers[step % 2][place].copy_(self._rgb[row], non_blocking=True)
        self._sent[step % 2].record(self._side)


def _pinned(rgb: Tensor) -> Tensor:
    """In memory that a GPU reads while it works on; where the system refuses, as it is."""
    try:
        return rgb.pin_memory()
    except RuntimeError as error:
        warnings.warn(f"the pictures cannot be pinned ({error}): they stream more slowly", stacklevel=2)
        return rgb
